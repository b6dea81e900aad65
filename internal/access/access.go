// Package access decides which requests a server accepts. It knows the tokens, the
// signed-in browsers and the user of this machine, holds the table of all routes with
// the role that each needs, and limits the load that unknown clients can cause.
//
// It answers only the requests that it refuses: handlers are registered on a Mux,
// which passes a request on after checking it. The package doesn't listen, doesn't
// render pages, and doesn't know what the handlers do.
//
// All methods are safe for concurrent use. Run owns the only goroutine.
package access

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access/sas"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// all is what turns are about where there is one thing only.
var all struct{}

// Config says who has access.
type Config struct {
	Local          string                 // the secret of the user who runs the server; empty means none
	Node           string                 // the secret of the nodes that the server starts; empty means none
	Open           bool                   // everybody who reaches the server is an administrator
	Loopback       bool                   // the server listens on this machine only: other host names are refused
	Secure         bool                   // the server speaks TLS: cookies are for TLS only
	Cookie         string                 // name of the browsers' cookie; empty means "fleetscore"
	KeepSessions   bool                   // sessions outlive a restart; otherwise the first step of Open ends them all
	Authorities    *Authorities           // that issue client certificates; nil means that certificates are not asked for
	SignInSecret   func() (string, error) // this server's secret at the OpenID provider; nil means that it has none
	NeedCert       bool                   // a token or a session is accepted only beside a good client certificate, except for this machine's user and the server's own nodes
	MaxUploadBytes int64                  // of one upload of rows or of a model; 0 means 256 MiB
	MaxBlobBytes   int64                  // of one file that a node writes; 0 means 8 GiB
}

// Ledger keeps tokens, sessions and the configuration; package ledger implements it.
type Ledger interface {
	ledger.Tokens
	ledger.Sessions
	Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error)
	Watch(topics ...ledger.Topic) (<-chan struct{}, func())
}

// Deps is what a Control works with.
type Deps struct {
	Ledger Ledger           // nil means that there are no tokens and none can be created, and that sessions are kept in memory
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // nil means time.Now
	// Nodes are the SHA-256 of the secrets of the nodes that other servers start; nil means
	// that there are no others.
	Nodes func() [][sha256.Size]byte
	// MayRead refuses files with keys of shared access policies that lie where the operator didn't allow it; nil means
	// that all may be read.
	MayRead func(file string) error
}

// Control decides who may do what.
type Control struct {
	cfg     Config
	store   Ledger // nil: there is none
	log     *slog.Logger
	now     func() time.Time
	local   sum // of the secrets of this machine
	node    sum
	others  func() [][sha256.Size]byte // Deps.Nodes; nil means that there are no other servers
	mayRead func(file string) error
	looked  atomic.Int64 // when a token was looked for that wasn't known, in nanoseconds since 1970

	settings  atomic.Pointer[settings]
	eventHubs atomic.Pointer[fleetscore.EventHubsConfig] // nil if no signatures are taken
	guesses   guesses
	sessions  sessions
	provider  *provider
	troubles  troubles                  // used by Run alone
	changes   lifecycle.Turns[struct{}] // a turn lasts from a change of the ledger's tokens and sessions until it is known here

	mu     sync.RWMutex // guards what follows
	tokens map[string]*token
	routes []string // all registered routes
}

// troubles are why a Control can't follow the ledger. What has one cause is told once.
type troubles struct{ read, tokens, sessions lifecycle.Trouble }

// Open builds a Control and reads the existing tokens.
func Open(ctx context.Context, cfg Config, deps Deps) (*Control, error) {
	if cfg.Cookie == "" {
		cfg.Cookie = "fleetscore"
	}
	if cfg.MaxUploadBytes == 0 {
		cfg.MaxUploadBytes = 256 << 20
	}
	if cfg.MaxBlobBytes == 0 {
		cfg.MaxBlobBytes = 8 << 30
	}
	d := &Control{cfg: cfg, store: deps.Ledger, log: deps.Log, now: deps.Now, local: sumOf(cfg.Local), node: sumOf(cfg.Node), tokens: map[string]*token{}, provider: newProvider()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	d.others, d.mayRead = deps.Nodes, deps.MayRead
	if d.mayRead == nil {
		d.mayRead = func(string) error { return nil }
	}
	var outages lifecycle.Outages
	d.troubles = troubles{outages.Trouble(d.log), outages.Trouble(d.log), outages.Trouble(d.log)}
	d.set(fleetscore.AccessConfig{})
	if d.store == nil {
		return d, nil
	}
	if !cfg.KeepSessions {
		if err := d.store.RemoveSessions(ctx, forever, forever); err != nil {
			return nil, err
		}
	}
	return d, d.read(ctx)
}

// Caller is the sender of a request.
type Caller struct {
	Role   fleetscore.Role
	Name   string            // of the token, in the certificate, or of the person; Local for this machine's user, Pool for the server's own nodes, Everybody if the server is open
	Of     string            // the pool of a token for a single node; empty if it isn't for one
	images []string          // the repositories that a token is for; empty means all
	Node   fleetscore.NodeID // the only node that the caller may act as; empty if its names say that
	via    via
	token  string    // identifier in the ledger; empty for callers without such a token
	secret sum       // of the token's text
	under  string    // the settings that gave the role to a certificate or a person
	ends   time.Time // of a certificate

	publisher string // the device that a sender of Event Hubs sends for; empty for all
}

// via is what a caller is known by.
type via string

const (
	viaMachine     via = ""            // a secret of this machine, or nothing if the server is open
	viaToken       via = "token"       // of the ledger
	viaCertificate via = "certificate" // of a client
	viaPerson      via = "person"      // an OpenID provider
	viaPolicy      via = "policy"      // a shared access signature
)

// The names of callers that use no token of the ledger. No token can have such a
// name, because the names contain spaces.
const (
	Local     = "local user"
	Pool      = "local pool"
	Everybody = "open server"
)

// callerKey is the key of a request's caller in its context.
type callerKey struct{}

// CallerOf returns the caller that the Mux identified; the zero Caller may do
// nothing.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// nodeMark separates the name of a token from the rest of a node's name.
const nodeMark = "."

// owner is what the names of the caller's nodes begin with; empty for the server's own
// nodes. No token can have the name that a certificate's holder gets here.
func (c Caller) owner() string {
	switch c.via {
	case viaToken:
		return c.Name
	case viaCertificate:
		return certificateOwner(c.Name)
	}
	return ""
}

func certificateOwner(name string) string {
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return ""
		}
	}
	if name == "" || len(name) > maxName {
		return ""
	}
	return "~" + strings.ReplaceAll(name, nodeMark, "~")
}

// NodeName is the name of a node that uses the token of that name.
func NodeName(token, name string) string { return token + nodeMark + name }

// NodePrefix is what the names of the caller's nodes begin with, so that no other
// holder of a token or certificate can act as them; empty for the server's own nodes.
func (c Caller) NodePrefix() string {
	if o := c.owner(); o != "" {
		return o + nodeMark
	}
	return ""
}

// Owns reports whether the caller may act as the node of that name.
func (c Caller) Owns(node fleetscore.NodeID) bool {
	if c.Node != "" {
		return c.Role == fleetscore.RoleNode && node == c.Node
	}
	owner, _, marked := strings.Cut(string(node), nodeMark)
	if c.via == viaMachine {
		return c.Role == fleetscore.RoleNode && !marked
	}
	return c.Role == fleetscore.RoleNode && marked && owner != "" && owner == c.owner()
}

// Refusal is the reason why a request was refused.
type Refusal struct {
	Status  int    // of HTTP
	Op      string // what was checked
	Subject string
	Message string
	Hint    string
}

// Error is the message.
func (r *Refusal) Error() string { return r.Message }

// judge identifies the caller and checks whether its role is enough for the route.
func (d *Control) judge(r *http.Request, need fleetscore.Role) (Caller, *Refusal) {
	c, refusal := d.identify(r)
	switch {
	case need == Anyone:
		return c, nil // public routes are served even with a wrong token
	case refusal != nil:
		return c, refusal
	case need == Known || c.Role.May(need):
		return c, d.needsCertificate(r, c)
	}
	who := c.String() + " has the role " + string(c.Role)
	hint := "use a token of that role; an administrator creates one with: fleetscore token create " + string(need) + " NAME"
	switch {
	case c.Role == fleetscore.RoleJoin:
		hint = "this is a one-time token, by which an agent joins a pool: fleetscore node --server URL, with the token in the file that FLEETSCORE_NODE_TOKEN_FILE names"
	case need == fleetscore.RoleJoin:
		hint = "use a token of fleetscore pool join-token POOL"
	case need == fleetscore.RoleNode:
		who, hint = "only nodes may do this, and "+who, "nodes use the token in the file that FLEETSCORE_NODE_TOKEN_FILE names"
		return c, &Refusal{Status: http.StatusForbidden, Op: "check role", Subject: r.Method + " " + r.URL.Path, Message: who, Hint: hint}
	}
	return c, &Refusal{Status: http.StatusForbidden, Op: "check role", Subject: r.Method + " " + r.URL.Path,
		Message: who + ", but this needs the role " + string(need), Hint: hint}
}

// String names the caller in messages.
func (c Caller) String() string {
	switch c.via {
	case viaToken, viaCertificate, viaPolicy:
		return "the " + string(c.via) + " " + c.Name
	case viaPerson:
		return c.Name
	}
	return "the " + c.Name
}

// needsCertificate refuses callers without a client certificate, where one is needed.
// The secrets of this machine don't leave it.
func (d *Control) needsCertificate(r *http.Request, c Caller) *Refusal {
	if !d.cfg.NeedCert || c.via == viaMachine || c.via == viaCertificate {
		return nil
	}
	p, why := d.certificate(r)
	if p == nil && why == nil {
		why = &Refusal{Status: http.StatusUnauthorized, Op: certificateOp, Subject: r.Method + " " + r.URL.Path,
			Message: "this server needs a client certificate besides the token, and none was presented", Hint: certificateHint}
	}
	return why
}

// identify finds the caller: by a shared access signature or a bearer token, else by a browser's cookie, else by a
// client certificate, else because the server is open to everybody.
func (d *Control) identify(r *http.Request) (Caller, *Refusal) {
	if h := r.Header.Get("Authorization"); h != "" {
		if strings.HasPrefix(h, sas.Scheme+" ") && !d.cfg.Open {
			return d.byPolicy(r, h)
		}
		text, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			text, ok = strings.CutPrefix(h, "Token ") // as clients of InfluxDB write it
		}
		if c, known := d.byToken(text); ok && known {
			return c, nil
		}
		if d.cfg.Open {
			return Caller{Role: fleetscore.RoleAdministrator, Name: Everybody}, nil
		}
		return Caller{}, d.wrong(r, "the token is wrong, was removed or has expired")
	}
	if cookie, err := r.Cookie(d.cfg.Cookie); err == nil {
		c, ok, err := d.bySession(r.Context(), cookie.Value)
		if err != nil {
			return Caller{}, away("authenticate", err)
		}
		if ok {
			return c, sameOrigin(r)
		}
	}
	if d.cfg.Open {
		return Caller{Role: fleetscore.RoleAdministrator, Name: Everybody}, nil
	}
	if p, why := d.certificate(r); why != nil {
		return Caller{}, why
	} else if p != nil {
		return d.byCertificate(p)
	}
	return Caller{}, &Refusal{Status: http.StatusUnauthorized, Op: "authenticate", Subject: r.Method + " " + r.URL.Path,
		Message: "no token was sent", Hint: tokenHint}
}

// away is the refusal where the ledger can't be asked.
func away(op string, err error) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Op: op, Message: "sessions can't be read or written now: " + err.Error(), Hint: "try again in a moment"}
}

const tokenHint = "send a token as the header Authorization: Bearer TOKEN; commands of the user who runs the server find their token by themselves; other users name a file with --token-file"

// wrong counts a wrong secret and returns the refusal. After too many wrong secrets
// in a short time the refusal says this, and the connection ends.
func (d *Control) wrong(r *http.Request, message string) *Refusal {
	from := addressOf(r)
	if d.guesses.count(from, d.now()) {
		return &Refusal{Status: http.StatusUnauthorized, Op: "authenticate", Subject: r.Method + " " + r.URL.Path, Message: message, Hint: tokenHint}
	}
	if d.guesses.tell(d.now()) {
		d.log.Warn("many wrong tokens", "from", from, "path", r.URL.Path)
	}
	return &Refusal{Status: http.StatusTooManyRequests, Op: "authenticate", Subject: r.Method + " " + r.URL.Path,
		Message: "too many wrong tokens came from this address", Hint: "wait a minute; a right token is always accepted"}
}

// byToken finds the caller of a token's text.
func (d *Control) byToken(text string) (Caller, bool) {
	got := sumOf(text)
	switch {
	case text == "":
		return Caller{}, false
	case d.cfg.Local != "" && got.equal(d.local):
		return Caller{Role: fleetscore.RoleAdministrator, Name: Local}, true
	case d.cfg.Node != "" && got.equal(d.node):
		return Caller{Role: fleetscore.RoleNode, Name: Pool}, true
	}
	if d.others != nil {
		for _, other := range d.others() {
			if got.equal(other) {
				return Caller{Role: fleetscore.RoleNode, Name: Pool}, true
			}
		}
	}
	id, ok := idOf(text)
	if !ok {
		return Caller{}, false
	}
	t, now := d.known(id), d.now()
	if t == nil && d.elsewhere() {
		t = d.known(id)
	}
	if t == nil || !t.accepts(got, now) {
		return Caller{}, false
	}
	t.use(got, now)
	return Caller{Role: t.Role, Name: t.Name, Of: t.Pool, Node: t.Node, images: t.Repositories, via: viaToken, token: id, secret: got}, true
}

// known is the token of an identifier; nil if there is none.
func (d *Control) known(id string) *token {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.tokens[id]
}

// elsewhere reads the tokens, at most once a second, where another server may have made one
// just now. It reports whether it did.
func (d *Control) elsewhere() bool {
	if d.others == nil {
		return false
	}
	last, now := d.looked.Load(), d.now().UnixNano()
	if now-last < int64(time.Second) && now >= last || !d.looked.CompareAndSwap(last, now) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return d.read(ctx) == nil
}

// valid reports whether a caller that was accepted before would still be accepted.
func (d *Control) valid(c Caller) bool {
	switch s := d.settings.Load(); c.via {
	case viaToken:
		t := d.known(c.token)
		return t != nil && t.accepts(c.secret, d.now())
	case viaCertificate:
		return c.under == s.certificates && d.now().Before(c.ends)
	case viaPerson:
		return c.under == s.signIn
	}
	return c.Name != Everybody || d.cfg.Open
}

// Routes are the patterns of all routes that were registered, sorted.
func (d *Control) Routes() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(slices.Values(d.routes))
}
