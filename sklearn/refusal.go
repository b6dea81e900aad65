package sklearn

import "github.com/fleetscore/fleetscore/sklearn/internal/refusal"

// Refusal is why Load didn't take a file. It is found in the error by errors.As; what
// to do about it stands in the hint of the [fleetscore.Error] around it.
//
//	var refused *sklearn.Refusal
//	if errors.As(err, &refused) && refused.Reason == sklearn.HoldsCode { … }
type Refusal = refusal.Refusal

// Reason is why a file isn't taken. Its text, as in JSON, is a word such as "code".
type Reason = refusal.Reason

// The reasons. Numbers and words never change.
const (
	Damaged      = refusal.Damaged   // the bytes are none that a model was written to, or contradict themselves
	Cut          = refusal.Cut       // the file ends before what was written does
	NotModel     = refusal.NotModel  // the file is of another kind, or holds something else than a model
	HoldsCode    = refusal.Code      // Python would run code that no model needs when it read the file
	OtherLibrary = refusal.Library   // the model is one of a library other than scikit-learn; Class says which
	UnknownClass = refusal.Class     // a class or function isn't supported
	Unsupported  = refusal.Parameter // a parameter, or how the model was fitted, isn't supported
	NotFitted    = refusal.NotFitted // the estimator was written before it was fitted
	NotFinite    = refusal.NotFinite // the model holds NaN or infinity where scores come from
	TooLarge     = refusal.TooLarge  // reading needs more memory or work than is allowed
	Late         = refusal.Late      // the context of LoadWith ended
	Several      = refusal.Several   // the file holds several models
)
