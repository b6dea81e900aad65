package sas

import (
	"strings"
	"testing"
	"time"
)

// known was made by another program: Python's hmac, base64 and urllib, as Microsoft
// documents it, for the policy "send" and the key "c2VjcmV0".
const known = "SharedAccessSignature sr=https%3A%2F%2Ffleet.example.com%2FHub&sig=AHLFfqaNEgNP9oXjphOM6szKhSI1olYauqXIX%2Bvg4%2FU%3D&se=1795694400&skn=send"

func TestParse(t *testing.T) {
	t.Parallel()
	token, err := Parse(known)
	if err != nil {
		t.Fatal(err)
	}
	if token.Policy != "send" || !token.Expires.Equal(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", token)
	}
	if !token.Signed("c2VjcmV0") || token.Signed("c2VjcmV1") || token.Signed("") {
		t.Errorf("the signature is judged wrongly: %+v", token)
	}
	for _, c := range []struct {
		host, path string
		want       bool
	}{
		{"fleet.example.com:7180", "/hub/messages", true}, {"FLEET.example.com", "/HUB/partitions/0/messages", true}, {"fleet.example.com", "/hub", true},
		{"fleet.example.com", "/hub2/messages", false}, {"fleet.example.com", "/", false}, {"other.example.com", "/hub/messages", false},
	} {
		if got := token.Covers(c.host, c.path); got != c.want {
			t.Errorf("%s%s: %v", c.host, c.path, got)
		}
	}
	if !token.Covers("10.0.0.1:7180", "/hub/messages", "fleet.example.com") {
		t.Error("another name of the service isn't taken")
	}
	for _, change := range [][2]string{{"sr=", "rs="}, {"&se=1795694400", ""}, {"1795694400", "soon"}, {"1795694400", "-1"}, {"&skn=send", "&skn="}, {"&skn=", "&se=1&skn="}, {"sig=", "sig=!"}, {Scheme, "Bearer"}, {"https%3A%2F%2F", "%zz"}, {"fleet.example.com%2FHub", ""}} {
		if text := strings.Replace(known, change[0], change[1], 1); text == known {
			t.Errorf("%q isn't in it", change[0])
		} else if token, err := Parse(text); err == nil {
			t.Errorf("%s: %+v", text, token)
		}
	}
	if later, err := Parse(strings.Replace(known, "1795694400", "1795694401", 1)); err != nil || later.Signed("c2VjcmV0") {
		t.Errorf("a later expiry isn't noticed: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(known)
	f.Add("SharedAccessSignature sr=a&sig=YQ%3d%3d&se=1&skn=b")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		if token.Signed("") || token.Expires.Before(time.Unix(0, 0)) {
			t.Errorf("%q: %+v", text, token)
		}
		if again := Sign("https://h/"+token.path, token.Policy, "key", token.Expires); token.Policy != "" {
			if same, err := Parse(again); err == nil && (!same.Signed("key") || !same.Covers("h", token.path) || same.Policy != token.Policy) {
				t.Errorf("%q: %+v of %q", text, same, again)
			}
		}
	})
}

// TestSign: what Sign makes is read and checked.
func TestSign(t *testing.T) {
	t.Parallel()
	token, err := Parse(Sign("sb://h/a b/c+d?api-version=2014-01", "p&q", "k", time.Unix(7, 0)))
	if err != nil || token.Policy != "p&q" || !token.Signed("k") || !token.Covers("h", "/A b/c+d/messages") || token.Expires.Unix() != 7 {
		t.Errorf("%+v %v", token, err)
	}
}
