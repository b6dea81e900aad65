package sklearn

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// Support says what is supported of a scikit-learn class.
type Support struct {
	Class   string   // such as "IsolationForest"
	Since   string   // the first release of scikit-learn whose models Load reads, such as "0.19"
	Methods []Method // the methods that can be computed; nil for a class that has the methods of the estimator in it
	Limits  string   // what is supported, if this isn't everything; empty if there are no limits
}

// Supported lists every class that Load reads, in the order of docs/sklearn.md. Load
// refuses every other class and names it in the error.
func Supported() []Support {
	out := make([]Support, 0, len(classes))
	for _, c := range classes {
		s := Support{Class: c.name, Since: "0.19", Limits: c.limits}
		for release, names := range sinceRelease {
			if slices.Contains(strings.Fields(names), c.name) {
				s.Since = release
			}
		}
		for _, of := range classMethods {
			if of.names == "" || slices.Contains(strings.Fields(of.names), c.name) {
				s.Methods = slices.Clone(of.methods)
				break
			}
		}
		out = append(out, s)
	}
	return out
}

// sinceRelease lists, by release, the classes that appeared after 0.19 or had another
// form before that release.
var sinceRelease = map[string]string{
	"0.20": "SimpleImputer PowerTransformer KBinsDiscretizer LocalOutlierFactor TransformedTargetRegressor",
	"0.21": "ColumnTransformer",
	"0.22": "VotingClassifier VotingRegressor StackingClassifier StackingRegressor",
	"0.23": "PoissonRegressor GammaRegressor TweedieRegressor",
	"0.24": "CalibratedClassifierCV HalvingGridSearchCV HalvingRandomSearchCV",
	"1.5":  "FixedThresholdClassifier TunedThresholdClassifierCV",
	"1.6":  "FrozenEstimator",
	"1.0":  "SGDOneClassSVM QuantileRegressor HistGradientBoostingClassifier HistGradientBoostingRegressor",
}

const (
	predict   = estimator.Predict
	decisions = estimator.DecisionFunction
	samples   = estimator.ScoreSamples
	proba     = estimator.PredictProba
	logProba  = estimator.PredictLogProba
	transform = estimator.Transform
)

// classMethods lists methods by class. The first line that names a class counts; the
// last line is for all classes that no line names: regressors.
var classMethods = []struct {
	names   string
	methods []Method
}{
	{"Pipeline GridSearchCV RandomizedSearchCV HalvingGridSearchCV HalvingRandomSearchCV RANSACRegressor FrozenEstimator", nil},
	{"PCA", []Method{transform, samples}},
	{"FeatureUnion ColumnTransformer FunctionTransformer StandardScaler MinMaxScaler RobustScaler MaxAbsScaler Normalizer SimpleImputer PowerTransformer QuantileTransformer PolynomialFeatures Binarizer VarianceThreshold SelectKBest SelectPercentile SelectFpr SelectFwe KBinsDiscretizer", []Method{transform}},
	{"OneClassSVM SGDOneClassSVM IsolationForest LocalOutlierFactor EllipticEnvelope", []Method{predict, decisions, samples}},
	{"SVC NuSVC LogisticRegression LogisticRegressionCV SGDClassifier GradientBoostingClassifier BaggingClassifier AdaBoostClassifier FixedThresholdClassifier TunedThresholdClassifierCV", []Method{predict, decisions, proba, logProba}},
	{"RidgeClassifier RidgeClassifierCV Perceptron LinearSVC PassiveAggressiveClassifier OneVsOneClassifier", []Method{predict, decisions}},
	{"DecisionTreeClassifier ExtraTreeClassifier RandomForestClassifier ExtraTreesClassifier GaussianNB MLPClassifier DummyClassifier", []Method{predict, proba, logProba}},
	{"HistGradientBoostingClassifier OneVsRestClassifier", []Method{predict, decisions, proba}},
	{"KNeighborsClassifier CalibratedClassifierCV", []Method{predict, proba}},
	{"KMeans MiniBatchKMeans", []Method{predict, transform}},
	{"GaussianMixture", []Method{predict, proba, samples}},
	{"VotingClassifier", []Method{predict, proba, transform}},
	{"VotingRegressor StackingRegressor", []Method{predict, transform}},
	{"StackingClassifier", []Method{predict, decisions, proba, transform}},
	{"", []Method{predict}},
}
