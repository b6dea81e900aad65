package sklearn

import "github.com/fleetscore/fleetscore/sklearn/internal/refusal"

// Refusal says why Load refused a file. errors.As finds it in the error; the hint of
// the [fleetscore.Error] around it says what to do.
//
//	var refused *sklearn.Refusal
//	if errors.As(err, &refused) && refused.Reason == sklearn.HoldsCode { … }
type Refusal = refusal.Refusal

// Reason is the kind of a refusal. Its text, as in JSON, is a word such as "code".
type Reason = refusal.Reason

// The reasons. Their numbers and words never change.
const (
	Damaged      = refusal.Damaged   // no writer of models makes such bytes, or parts of the file contradict each other
	Cut          = refusal.Cut       // the file ends too early
	NotModel     = refusal.NotModel  // the file has another format, or holds something other than a model
	HoldsCode    = refusal.Code      // Python would run code that no model needs if it read the file
	OtherLibrary = refusal.Library   // the model comes from a library other than scikit-learn; Class names the library
	UnknownClass = refusal.Class     // a class or function in the file isn't supported
	Unsupported  = refusal.Parameter // a parameter, or how the model was fitted, isn't supported
	NotFitted    = refusal.NotFitted // the estimator was written before it was fitted
	NotFinite    = refusal.NotFinite // the model holds NaN or infinity in numbers that scores depend on
	TooLarge     = refusal.TooLarge  // reading the file needs more memory or work than is allowed
	Late         = refusal.Late      // the context of LoadWith ended
	Several      = refusal.Several   // the file holds several models
)
