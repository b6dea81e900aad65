package sklearn

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/calibration"
	"github.com/fleetscore/fleetscore/sklearn/internal/compose"
	"github.com/fleetscore/fleetscore/sklearn/internal/ensemble"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/linear"
	"github.com/fleetscore/fleetscore/sklearn/internal/mixture"
	"github.com/fleetscore/fleetscore/sklearn/internal/neighbors"
	"github.com/fleetscore/fleetscore/sklearn/internal/neural"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/preprocess"
	"github.com/fleetscore/fleetscore/sklearn/internal/svm"
	"github.com/fleetscore/fleetscore/sklearn/internal/tree"
)

// class is a supported scikit-learn class.
type class struct {
	name    string
	code    uint32   // the class's number in native records; never changes
	modules []string // the modules below sklearn that hold the class in the newest releases
	retired []string // the modules that held it in earlier releases
	read    func(*estimator.Attributes) estimator.Estimator
	empty   func() estimator.Estimator // makes an empty one, for native records
	limits  string                     // what is supported of the class; empty means everything
}

func one[T any, P interface {
	*T
	estimator.Estimator
}]() estimator.Estimator {
	return P(new(T))
}

func named[T estimator.Estimator](name string, empty func(string) T) func() estimator.Estimator {
	return func() estimator.Estimator { return empty(name) }
}

func in(modules ...string) []string { return modules }

// classes are all supported classes.
var classes = slices.Concat(composing, preprocessing, machines, linearModels, treeModels, others, ensembles)

var composing = []class{
	{"Pipeline", 1, in("pipeline"), nil, compose.ReadPipeline, one[compose.Pipeline], ""},
	{"FeatureUnion", 2, in("pipeline"), nil, compose.ReadFeatureUnion, one[compose.FeatureUnion], ""},
	{"ColumnTransformer", 3, in("compose._column_transformer"), nil, compose.ReadColumnTransformer, one[compose.ColumnTransformer], "columns chosen by position, name, slice or mask; models from 0.20.4 and 0.21.3 on, with names from 0.24 on"},
	{"FunctionTransformer", 4, in("preprocessing._function_transformer"), nil, compose.ReadFunctionTransformer, one[compose.FunctionTransformer], "NumPy's functions of one number, such as log1p, and func=None"},
}

var preprocessing = []class{
	{"StandardScaler", 16, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadStandardScaler, one[preprocess.StandardScaler], ""},
	{"MinMaxScaler", 17, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadMinMaxScaler, one[preprocess.MinMaxScaler], ""},
	{"RobustScaler", 18, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadRobustScaler, one[preprocess.RobustScaler], ""},
	{"MaxAbsScaler", 19, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadMaxAbsScaler, one[preprocess.MaxAbsScaler], ""},
	{"Normalizer", 20, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadNormalizer, one[preprocess.Normalizer], ""},
	{"SimpleImputer", 21, in("impute._base", "impute"), nil, preprocess.ReadSimpleImputer, one[preprocess.SimpleImputer], "numbers"},
	{"PowerTransformer", 22, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadPowerTransformer, one[preprocess.PowerTransformer], ""},
	{"QuantileTransformer", 23, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadQuantileTransformer, one[preprocess.QuantileTransformer], ""},
	{"PolynomialFeatures", 24, in("preprocessing._polynomial"), in("preprocessing._data", "preprocessing.data"), preprocess.ReadPolynomialFeatures, one[preprocess.PolynomialFeatures], ""},
	{"PCA", 25, in("decomposition._pca"), in("decomposition.pca"), preprocess.ReadPCA, one[preprocess.PCA], ""},
	{"Binarizer", 27, in("preprocessing._data"), in("preprocessing.data"), preprocess.ReadBinarizer, one[preprocess.Binarizer], ""},
	selector("VarianceThreshold", 28, "_variance_threshold"),
	selector("SelectKBest", 29, "_univariate_selection"),
	selector("SelectPercentile", 30, "_univariate_selection"),
	selector("SelectFpr", 31, "_univariate_selection"),
	selector("SelectFwe", 159, "_univariate_selection"),
	{"KBinsDiscretizer", 26, in("preprocessing._discretization"), nil, preprocess.ReadKBinsDiscretizer, one[preprocess.KBinsDiscretizer], ""},
}

func selector(name string, code uint32, module string) class {
	return class{name, code, in("feature_selection." + module), in("feature_selection." + module[1:]), preprocess.ReadSelector, named(name, preprocess.NewSelector), ""}
}

// instead returns a class such as a search, of which only the estimator that it found
// is kept. Such a class has no native form.
func instead(name, module, old string, read func(*estimator.Attributes) estimator.Estimator, limits string) class {
	return class{name, 0, in(module), in(old), read, nil, limits}
}

var ensembles = []class{
	{"BaggingClassifier", 120, in("ensemble._bagging"), in("ensemble.bagging"), ensemble.ReadBagging, named("BaggingClassifier", ensemble.NewBagging), ""},
	{"BaggingRegressor", 121, in("ensemble._bagging"), in("ensemble.bagging"), ensemble.ReadBagging, named("BaggingRegressor", ensemble.NewBagging), ""},
	{"AdaBoostClassifier", 122, in("ensemble._weight_boosting"), in("ensemble.weight_boosting"), ensemble.ReadAdaBoost, named("AdaBoostClassifier", ensemble.NewAdaBoost), ""},
	{"AdaBoostRegressor", 123, in("ensemble._weight_boosting"), in("ensemble.weight_boosting"), ensemble.ReadAdaBoost, named("AdaBoostRegressor", ensemble.NewAdaBoost), ""},
	{"VotingClassifier", 124, in("ensemble._voting"), in("ensemble.voting", "ensemble.voting_classifier"), ensemble.ReadVoting, named("VotingClassifier", ensemble.NewVoting), "transform with flatten_transform=True"},
	{"VotingRegressor", 125, in("ensemble._voting"), in("ensemble.voting"), ensemble.ReadVoting, named("VotingRegressor", ensemble.NewVoting), ""},
	{"StackingClassifier", 126, in("ensemble._stacking"), nil, ensemble.ReadStacking, named("StackingClassifier", ensemble.NewStacking), ""},
	{"StackingRegressor", 127, in("ensemble._stacking"), nil, ensemble.ReadStacking, named("StackingRegressor", ensemble.NewStacking), ""},
	{"OneVsRestClassifier", 128, in("multiclass"), nil, ensemble.ReadPerClass, named("OneVsRestClassifier", ensemble.NewPerClass), oneLabel},
	{"OneVsOneClassifier", 129, in("multiclass"), nil, ensemble.ReadPerClass, named("OneVsOneClassifier", ensemble.NewPerClass), ""},
	{"MultiOutputRegressor", 130, in("multioutput"), nil, ensemble.ReadPerOutput, named("MultiOutputRegressor", ensemble.NewPerOutput), ""},
	{"DummyClassifier", 131, in("dummy"), nil, ensemble.ReadDummy, named("DummyClassifier", ensemble.NewDummy), "strategy most_frequent and prior"},
	{"DummyRegressor", 132, in("dummy"), nil, ensemble.ReadDummy, named("DummyRegressor", ensemble.NewDummy), ""},
	{"TransformedTargetRegressor", 133, in("compose._target"), nil, compose.ReadTarget, one[compose.Target], "transformers StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler; NumPy's functions of one number"},
	instead("GridSearchCV", "model_selection._search", "grid_search", compose.ReadSearch, "refit=True"),
	instead("RandomizedSearchCV", "model_selection._search", "grid_search", compose.ReadSearch, "refit=True"),
	instead("HalvingGridSearchCV", "model_selection._search_successive_halving", "", compose.ReadSearch, "refit=True"),
	instead("HalvingRandomSearchCV", "model_selection._search_successive_halving", "", compose.ReadSearch, "refit=True"),
	{"FixedThresholdClassifier", 164, in("model_selection._classification_threshold"), nil, ensemble.ReadThreshold, named("FixedThresholdClassifier", ensemble.NewThreshold), ""},
	{"TunedThresholdClassifierCV", 165, in("model_selection._classification_threshold"), nil, ensemble.ReadThreshold, named("TunedThresholdClassifierCV", ensemble.NewThreshold), "tuned by accuracy, balanced_accuracy, f1, fbeta, precision, recall, jaccard, matthews_corrcoef and cohen_kappa"},
	instead("FrozenEstimator", "frozen._frozen", "", compose.ReadFrozen, ""),
	instead("RANSACRegressor", "linear_model._ransac", "linear_model.ransac", compose.ReadRobust, ""),
}

const svmLimits = "kernels linear, poly, rbf and sigmoid; fitted on dense rows"

var machines = []class{
	{"OneClassSVM", 32, in("svm._classes"), in("svm.classes"), svm.ReadOneClassSVM, one[svm.OneClassSVM], svmLimits},
	{"SVC", 33, in("svm._classes"), in("svm.classes"), svm.ReadClassifier, named("SVC", svm.NewClassifier), svmLimits},
	{"NuSVC", 34, in("svm._classes"), in("svm.classes"), svm.ReadClassifier, named("NuSVC", svm.NewClassifier), svmLimits},
	{"SVR", 35, in("svm._classes"), in("svm.classes"), svm.ReadSVR, named("SVR", svm.NewRegressor), svmLimits},
	{"NuSVR", 36, in("svm._classes"), in("svm.classes"), svm.ReadNuSVR, named("NuSVR", svm.NewRegressor), svmLimits},
}

func linearClass(name string, code uint32, module string) class {
	return class{name, code, in(module), in(strings.Replace(module, "._", ".", 1)), linear.ReadRegressor, named(name, linear.NewRegressor), ""}
}

func linearClassifier(name string, code uint32, module string) class {
	return class{name, code, in(module), in(strings.Replace(module, "._", ".", 1)), linear.ReadClassifier, named(name, linear.NewClassifier), ""}
}

var linearModels = []class{
	linearClass("LinearRegression", 48, "linear_model._base"),
	linearClass("Ridge", 49, "linear_model._ridge"),
	linearClass("RidgeCV", 50, "linear_model._ridge"),
	linearClass("Lasso", 51, "linear_model._coordinate_descent"),
	linearClass("LassoCV", 52, "linear_model._coordinate_descent"),
	linearClass("ElasticNet", 53, "linear_model._coordinate_descent"),
	linearClass("ElasticNetCV", 54, "linear_model._coordinate_descent"),
	linearClass("BayesianRidge", 55, "linear_model._bayes"),
	linearClass("HuberRegressor", 56, "linear_model._huber"),
	linearClass("SGDRegressor", 57, "linear_model._stochastic_gradient"),
	linearClass("LinearSVR", 58, "svm._classes"),
	linearClass("ARDRegression", 140, "linear_model._bayes"),
	linearClass("Lars", 141, "linear_model._least_angle"),
	linearClass("LarsCV", 142, "linear_model._least_angle"),
	linearClass("LassoLars", 143, "linear_model._least_angle"),
	linearClass("LassoLarsCV", 144, "linear_model._least_angle"),
	linearClass("LassoLarsIC", 145, "linear_model._least_angle"),
	linearClass("OrthogonalMatchingPursuit", 146, "linear_model._omp"),
	linearClass("OrthogonalMatchingPursuitCV", 147, "linear_model._omp"),
	linearClass("TheilSenRegressor", 148, "linear_model._theil_sen"),
	linearClass("PassiveAggressiveRegressor", 149, "linear_model._passive_aggressive"),
	linearClass("QuantileRegressor", 150, "linear_model._quantile"),
	linearClass("MultiTaskLasso", 151, "linear_model._coordinate_descent"),
	linearClass("MultiTaskLassoCV", 152, "linear_model._coordinate_descent"),
	linearClass("MultiTaskElasticNet", 153, "linear_model._coordinate_descent"),
	linearClass("MultiTaskElasticNetCV", 154, "linear_model._coordinate_descent"),
	linearClass("PoissonRegressor", 155, "linear_model._glm.glm"),
	linearClass("GammaRegressor", 156, "linear_model._glm.glm"),
	linearClass("TweedieRegressor", 157, "linear_model._glm.glm"),
	linearClassifier("PassiveAggressiveClassifier", 158, "linear_model._passive_aggressive"),
	linearClassifier("LogisticRegression", 64, "linear_model._logistic"),
	linearClassifier("LogisticRegressionCV", 65, "linear_model._logistic"),
	linearClassifier("RidgeClassifier", 66, "linear_model._ridge"),
	linearClassifier("RidgeClassifierCV", 67, "linear_model._ridge"),
	linearClassifier("SGDClassifier", 68, "linear_model._stochastic_gradient"),
	linearClassifier("Perceptron", 69, "linear_model._perceptron"),
	linearClassifier("LinearSVC", 70, "svm._classes"),
	{"SGDOneClassSVM", 71, in("linear_model._stochastic_gradient"), nil, linear.ReadSGDOneClassSVM, one[linear.SGDOneClassSVM], ""},
}

const (
	oneLabel      = "one label per row"
	severalLabels = "with several labels per row, predict_proba has the columns of the first label, then those of the next"
)

func forest(name string, code uint32, module, old, limits string) class {
	return class{name, code, in(module), in(old), tree.ReadForest, named(name, tree.NewForest), limits}
}

var treeModels = []class{
	forest("DecisionTreeClassifier", 80, "tree._classes", "tree.tree", severalLabels),
	forest("DecisionTreeRegressor", 81, "tree._classes", "tree.tree", ""),
	forest("ExtraTreeClassifier", 82, "tree._classes", "tree.tree", severalLabels),
	forest("ExtraTreeRegressor", 83, "tree._classes", "tree.tree", ""),
	forest("RandomForestClassifier", 84, "ensemble._forest", "ensemble.forest", severalLabels),
	forest("RandomForestRegressor", 85, "ensemble._forest", "ensemble.forest", ""),
	forest("ExtraTreesClassifier", 86, "ensemble._forest", "ensemble.forest", severalLabels),
	forest("ExtraTreesRegressor", 87, "ensemble._forest", "ensemble.forest", ""),
	{"IsolationForest", 88, in("ensemble._iforest"), in("ensemble.iforest"), tree.ReadIsolationForest, one[tree.IsolationForest], ""},
	{"GradientBoostingClassifier", 89, in("ensemble._gb"), in("ensemble.gradient_boosting"), tree.ReadGradientBoosting, named("GradientBoostingClassifier", tree.NewGradientBoosting), "init=None or \"zero\""},
	{"GradientBoostingRegressor", 90, in("ensemble._gb"), in("ensemble.gradient_boosting"), tree.ReadGradientBoosting, named("GradientBoostingRegressor", tree.NewGradientBoosting), "init=None or \"zero\""},
	hist("HistGradientBoostingClassifier", 91),
	hist("HistGradientBoostingRegressor", 92),
}

// several are the forms that classifiers with several labels per row have in records.
// In files, these classifiers have the ordinary class names.
var several = []class{
	severalOutputs("DecisionTreeClassifier", 160), severalOutputs("ExtraTreeClassifier", 161),
	severalOutputs("RandomForestClassifier", 162), severalOutputs("ExtraTreesClassifier", 163),
}

func severalOutputs(name string, code uint32) class {
	name += tree.Several
	return class{name: name, code: code, empty: named(name, tree.NewOutputs)}
}

func hist(name string, code uint32) class {
	return class{name, code, in("ensemble._hist_gradient_boosting.gradient_boosting"), nil, tree.ReadHistGradientBoosting, named(name, tree.NewHistGradientBoosting), "numeric features"}
}

const metrics = "metrics euclidean, seuclidean, sqeuclidean, manhattan, chebyshev, minkowski (also with weights), canberra, braycurtis (with a ball tree), hamming and cosine; all training rows are compared"

var others = []class{
	{"LocalOutlierFactor", 96, in("neighbors._lof"), in("neighbors.lof"), neighbors.ReadLocalOutlierFactor, one[neighbors.LocalOutlierFactor], "novelty=True; " + metrics},
	{"KNeighborsClassifier", 97, in("neighbors._classification"), in("neighbors.classification"), neighbors.ReadKNeighbors, named("KNeighborsClassifier", neighbors.NewKNeighbors), "weights uniform and distance; " + metrics},
	{"KNeighborsRegressor", 98, in("neighbors._regression"), in("neighbors.regression"), neighbors.ReadKNeighbors, named("KNeighborsRegressor", neighbors.NewKNeighbors), "weights uniform and distance; " + metrics},
	{"EllipticEnvelope", 104, in("covariance._elliptic_envelope"), in("covariance.elliptic_envelope", "covariance.outlier_detection"), mixture.ReadEllipticEnvelope, one[mixture.EllipticEnvelope], ""},
	{"KMeans", 105, in("cluster._kmeans"), in("cluster.k_means_", "cluster._k_means"), mixture.ReadKMeans, named("KMeans", mixture.NewKMeans), ""},
	{"MiniBatchKMeans", 106, in("cluster._kmeans"), in("cluster.k_means_", "cluster._k_means"), mixture.ReadKMeans, named("MiniBatchKMeans", mixture.NewKMeans), ""},
	{"GaussianMixture", 107, in("mixture._gaussian_mixture"), in("mixture.gaussian_mixture"), mixture.ReadGaussianMixture, one[mixture.GaussianMixture], ""},
	{"GaussianNB", 108, in("naive_bayes"), nil, mixture.ReadGaussianNB, one[mixture.GaussianNB], ""},
	{"CalibratedClassifierCV", 109, in("calibration"), nil, calibration.Read, one[calibration.Calibrated], "method sigmoid and isotonic"},
	{"MLPClassifier", 112, in("neural_network._multilayer_perceptron"), in("neural_network.multilayer_perceptron"), neural.ReadPerceptron, named("MLPClassifier", neural.NewPerceptron), oneLabel},
	{"MLPRegressor", 113, in("neural_network._multilayer_perceptron"), in("neural_network.multilayer_perceptron"), neural.ReadPerceptron, named("MLPRegressor", neural.NewPerceptron), ""},
}

const supported = "the estimators that the documentation of package sklearn lists"

// names are all names of classes and functions that a file may use.
var names = func() *pickle.Names {
	var list []pickle.Name
	for i, c := range classes {
		for _, m := range c.modules {
			list = append(list, pickle.Name{Module: "sklearn." + m, Name: c.name, Use: pickle.Class, ID: i})
		}
		for _, m := range c.retired {
			if m == "" {
				continue
			}
			list = append(list, pickle.Name{Module: "sklearn." + m, Name: c.name, Use: pickle.Class, ID: i, Retired: true})
		}
	}
	for _, m := range [...]string{"numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath", "numpy.core.umath", "numpy._core.umath"} {
		for f := range compose.Functions() {
			list = append(list, pickle.Name{Module: m, Name: f, Use: pickle.Record})
		}
	}
	for _, p := range parts {
		for name := range strings.FieldsSeq(p.names) {
			list = append(list, pickle.Name{Module: p.module, Name: name, Use: p.use})
		}
	}
	return pickle.NewNames(list, supported)
}()

// parts are classes and functions that estimators keep in their attributes besides
// arrays. An object of a part marked Record is read; one marked Inert is skipped.
var parts = []struct {
	module string
	use    pickle.Use
	names  string
}{
	{"sklearn.tree._tree", pickle.Record, "Tree"},
	{"builtins", pickle.Record, "slice"},
	{"__builtin__", pickle.Record, "slice"},
	{"numpy.core", pickle.Record, "_ufunc_reconstruct"},
	{"numpy._core", pickle.Record, "_ufunc_reconstruct"},
	{"sklearn.compose._column_transformer", pickle.Record, "_RemainderColsList"},
	{"sklearn.impute._base", pickle.Record, "MissingIndicator"},
	{"sklearn.impute", pickle.Record, "MissingIndicator"},
	{"sklearn.ensemble.gradient_boosting", pickle.Record, "LogOddsEstimator ScaledLogOddsEstimator PriorProbabilityEstimator MeanEstimator QuantileEstimator ZeroEstimator"},
	{"sklearn.preprocessing._label", pickle.Record, "LabelBinarizer LabelEncoder"},
	{"sklearn.preprocessing.label", pickle.Record, "LabelBinarizer LabelEncoder"},

	{"sklearn.ensemble._hist_gradient_boosting.predictor", pickle.Record, "TreePredictor"},
	{"sklearn.model_selection._classification_threshold", pickle.Record, "_CurveScorer"},
	{"sklearn.metrics._scorer", pickle.Record, "_CurveScorer"},
	{"sklearn.calibration", pickle.Record, "_CalibratedClassifier _SigmoidCalibration"},
	{"sklearn.isotonic", pickle.Record, "IsotonicRegression"},

	{"sklearn.ensemble._hist_gradient_boosting.binning", pickle.Inert, "_BinMapper"},
	{"sklearn.ensemble._hist_gradient_boosting.loss", pickle.Inert, "LeastSquares LeastAbsoluteDeviation Poisson BinaryCrossEntropy CategoricalCrossEntropy"},
	{"numpy.random._generator", pickle.Inert, "Generator"},
	{"numpy.random.bit_generator", pickle.Inert, "SeedSequence __pyx_unpickle_SeedSequence"},
	{"sklearn.preprocessing._encoders", pickle.Record, "OneHotEncoder OrdinalEncoder"},
	{"sklearn.ensemble._gb_losses", pickle.Inert, gbLosses},
	{"sklearn.ensemble.gradient_boosting", pickle.Inert, gbLosses},
	{"sklearn.ensemble._gb", pickle.Inert, "VerboseReporter"},
	{"sklearn._loss.loss", pickle.Inert, lossNames},
	{"sklearn._loss._loss", pickle.Inert, cythonLosses},
	{"_loss", pickle.Inert, cythonLosses},
	{"sklearn._loss.link", pickle.Inert, "IdentityLink LogLink LogitLink HalfLogitLink MultinomialLogit Interval"},
	{"sklearn.linear_model._sgd_fast", pickle.Inert, sgdLosses},
	{"sklearn.linear_model.sgd_fast", pickle.Inert, sgdLosses},
	{"sklearn.neural_network._stochastic_optimizers", pickle.Inert, "AdamOptimizer SGDOptimizer"},
	{"sklearn.neighbors._kd_tree", pickle.Inert, "KDTree KDTree64 KDTree32 newObj BinaryTree64 BinaryTree32"},
	{"sklearn.neighbors.kd_tree", pickle.Inert, "KDTree newObj BinaryTree"},
	{"sklearn.neighbors._ball_tree", pickle.Inert, "BallTree BallTree64 BallTree32 newObj BinaryTree64 BinaryTree32"},
	{"sklearn.neighbors.ball_tree", pickle.Inert, "BallTree newObj BinaryTree"},
	{"sklearn.metrics._dist_metrics", pickle.Inert, metricClasses},
	{"sklearn.neighbors._dist_metrics", pickle.Inert, metricClasses},
	{"sklearn.neighbors.dist_metrics", pickle.Inert, metricClasses},
	{"sklearn.metrics._scorer", pickle.Inert, scorers},
	{"sklearn.metrics.scorer", pickle.Inert, scorers},
	{"sklearn.metrics._classification", pickle.Inert, "accuracy_score balanced_accuracy_score f1_score precision_score recall_score jaccard_score matthews_corrcoef log_loss brier_score_loss"},
	{"sklearn.metrics.classification", pickle.Inert, "accuracy_score f1_score precision_score recall_score matthews_corrcoef log_loss brier_score_loss"},
	{"sklearn.metrics.ranking", pickle.Inert, "roc_auc_score average_precision_score"},
	{"sklearn.metrics.regression", pickle.Inert, "r2_score mean_squared_error mean_absolute_error median_absolute_error explained_variance_score"},
	{"functools", pickle.Inert, "partial"},
	{"pandas.core.indexes.base", pickle.Record, "_new_Index Index"},
	{"sklearn.utils.validation", pickle.Inert, "check_array"},
	{"sklearn.utils._metadata_requests", pickle.Inert, "MetadataRequest MethodMetadataRequest"},
	{"builtins", pickle.Inert, "FutureWarning DeprecationWarning"},
	{"exceptions", pickle.Inert, "FutureWarning DeprecationWarning"},
	{"sklearn.metrics._ranking", pickle.Inert, "roc_auc_score average_precision_score"},
	{"sklearn.metrics._regression", pickle.Inert, "r2_score mean_squared_error root_mean_squared_error mean_absolute_error median_absolute_error mean_absolute_percentage_error max_error explained_variance_score"},
	{"numpy.ma.core", pickle.Inert, "_mareconstruct MaskedArray"},
	{"numpy.ma", pickle.Inert, "_mareconstruct MaskedArray"},
	{"scipy.stats._distn_infrastructure", pickle.Inert, "rv_frozen rv_continuous_frozen rv_discrete_frozen"},
	{"scipy.stats._continuous_distns", pickle.Inert, "reciprocal_gen loguniform_gen uniform_gen norm_gen expon_gen gamma_gen"},
	{"scipy.stats._discrete_distns", pickle.Inert, "randint_gen"},
	{"sklearn.model_selection._split", pickle.Inert, "KFold StratifiedKFold"},
	{"sklearn.feature_selection._univariate_selection", pickle.Inert, "f_classif f_regression chi2"},
	{"sklearn.feature_selection.univariate_selection", pickle.Inert, "f_classif f_regression chi2"},
	{"sklearn.linear_model._glm.link", pickle.Inert, "IdentityLink LogLink"},
	{"sklearn._loss.glm_distribution", pickle.Inert, "PoissonDistribution GammaDistribution TweedieDistribution NormalDistribution DistributionBoundary"},
	{"sklearn.multiclass", pickle.Record, "_ConstantPredictor"},
	{"sklearn.utils._bunch", pickle.Inert, "Bunch"},
	{"sklearn.utils", pickle.Inert, "Bunch"},
	{"sklearn.utils.deprecation", pickle.Inert, "DeprecationDict"},
}

const (
	gbLosses      = "LeastSquaresError LeastAbsoluteError HuberLossFunction QuantileLossFunction BinomialDeviance MultinomialDeviance ExponentialLoss"
	lossNames     = "HalfSquaredError AbsoluteError PinballLoss HuberLoss HalfPoissonLoss HalfGammaLoss HalfTweedieLoss HalfTweedieLossIdentity HalfBinomialLoss HalfMultinomialLoss ExponentialLoss"
	cythonLosses  = "__pyx_unpickle_CyHuberLoss __pyx_unpickle_CyPinballLoss CyHalfSquaredError CyAbsoluteError CyPinballLoss CyHuberLoss CyHalfPoissonLoss CyHalfGammaLoss CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHalfBinomialLoss CyHalfMultinomialLoss CyExponentialLoss __pyx_unpickle_CyHalfSquaredError __pyx_unpickle_CyAbsoluteError __pyx_unpickle_CyHalfPoissonLoss __pyx_unpickle_CyHalfGammaLoss __pyx_unpickle_CyHalfTweedieLoss __pyx_unpickle_CyHalfTweedieLossIdentity __pyx_unpickle_CyHalfBinomialLoss __pyx_unpickle_CyHalfMultinomialLoss __pyx_unpickle_CyExponentialLoss"
	scorers       = "_PassthroughScorer _passthrough_scorer _Scorer _PredictScorer _ProbaScorer _ThresholdScorer"
	sgdLosses     = "Hinge SquaredHinge Log ModifiedHuber SquaredLoss Huber EpsilonInsensitive SquaredEpsilonInsensitive"
	metricClasses = "newObj EuclideanDistance EuclideanDistance64 EuclideanDistance32 ManhattanDistance ManhattanDistance64 ManhattanDistance32 ChebyshevDistance ChebyshevDistance64 ChebyshevDistance32 MinkowskiDistance MinkowskiDistance64 MinkowskiDistance32 WMinkowskiDistance WMinkowskiDistance64 CanberraDistance CanberraDistance64 CanberraDistance32 HammingDistance HammingDistance64 HammingDistance32 BrayCurtisDistance BrayCurtisDistance64 BrayCurtisDistance32 SEuclideanDistance SEuclideanDistance64 SEuclideanDistance32 MahalanobisDistance MahalanobisDistance64 MahalanobisDistance32"
)

// records finds classes by their number in native records.
var records = func() *estimator.Classes {
	byName, byCode := map[string]uint32{}, map[uint32]func() estimator.Estimator{}
	var names []string
	for _, c := range slices.Concat(classes, several) {
		byName[c.name], byCode[c.code] = c.code, c.empty
		if n := int(c.code) + 1; n > len(names) {
			names = append(names, make([]string, n-len(names))...)
		}
		names[c.code] = c.name
	}
	return &estimator.Classes{
		Code:  func(name string) uint32 { return byName[name] },
		Names: names,
		New: func(code uint32) estimator.Estimator {
			if empty := byCode[code]; empty != nil {
				return empty()
			}
			return nil
		},
	}
}()

// fileClasses finds classes by their index in classes.
var fileClasses = func() func(int) *estimator.Class {
	out := make([]estimator.Class, len(classes))
	for i, c := range classes {
		out[i] = estimator.Class{Name: c.name, Read: c.read}
	}
	return func(id int) *estimator.Class { return &out[id] }
}()
