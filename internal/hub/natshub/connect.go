package natshub

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

const (
	leastPayload = 64 << 10 // of the servers, below which batches would be divided too often
	headerRoom   = 512      // of a message's bytes, for JetStream's headers
)

// connect connects to one of the servers. A connection that is lost later is made again
// for as long as the hub is open.
func (l *log) connect() error {
	options := []nats.Option{
		nats.Name("fleetscore"),
		nats.Timeout(apiLimit),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1), // a publish without a connection fails at once, so that it isn't sent after its append has failed
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(l.disconnected),
		nats.ReconnectHandler(l.reconnected),
		nats.ErrorHandler(l.refused),
	}
	auth, err := credentials(l.cfg.Credentials)
	if err != nil {
		return err
	}
	options = append(options, auth...)
	if l.cfg.CA != "" {
		options = append(options, nats.RootCAs(l.cfg.CA))
	}
	if l.cfg.Certificate != "" {
		options = append(options, nats.ClientCert(l.cfg.Certificate, l.cfg.Key))
	}
	if l.conn, err = nats.Connect(l.cfg.URL, options...); err != nil {
		return l.connectError(err)
	}
	l.js, err = jetstream.New(l.conn, jetstream.WithDefaultTimeout(apiLimit),
		jetstream.WithPublishAsyncTimeout(answerLimit)) // so that unanswered messages are forgotten
	if err != nil {
		l.conn.Close()
		return fleetscore.Errorf(fleetscore.Internal, opOpen, l.cfg.URL, "%w", err)
	}
	l.maxBytes = min(hub.MaxMessageBytes, int(l.conn.MaxPayload())-headerRoom)
	if n := l.conn.MaxPayload(); n < leastPayload {
		l.conn.Close()
		return fleetscore.Errorf(fleetscore.Invalid, opOpen, l.cfg.URL, "the NATS servers take messages of at most %d bytes", n).
			WithHint("set max_payload in the servers' configuration to at least %d; 8 MB are best", leastPayload)
	}
	return nil
}

func (l *log) connectError(err error) error {
	var file *os.PathError
	switch {
	case errors.As(err, &file):
		return fleetscore.Errorf(fleetscore.Invalid, opOpen, file.Path, "the file can't be read: %w", file.Err).WithHint("correct hub.nats in fleet.yaml, or put the file there")
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return fleetscore.Errorf(fleetscore.Invalid, opOpen, l.cfg.URL, "the NATS server refuses this user: %w", err).WithHint("put valid credentials into a file and name the file in hub.nats.credentials")
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted), strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "x509: "):
		return fleetscore.Errorf(fleetscore.Invalid, opOpen, l.cfg.URL, "no TLS connection to the NATS server is possible: %w", err).
			WithHint("write tls:// in hub.nats.url if the server uses TLS, and name the file with the certificate that signed the server's in hub.nats.ca")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, opOpen, l.cfg.URL, "no NATS server answers: %w", err).WithHint("start the NATS servers, or correct hub.nats.url")
}

// disconnected, reconnected and refused are called by the connection.
func (l *log) disconnected(_ *nats.Conn, err error) {
	if l.closed() {
		return
	}
	if err == nil {
		err = errors.New("the server ended it")
	}
	l.mu.Lock()
	l.lost, l.since = fmt.Sprintf("the connection to the NATS servers was lost (%v)", err), time.Now()
	l.mu.Unlock()
	for _, p := range l.partitions {
		p.renew()
	}
	l.slog.Warn("the connection to the NATS servers was lost; it is tried again", "url", l.cfg.URL, "error", err)
	l.report()
}

func (l *log) reconnected(*nats.Conn) {
	l.mu.Lock()
	l.lost = ""
	l.mu.Unlock()
	l.slog.Info("connected to a NATS server again", "server", l.conn.ConnectedUrlRedacted())
	l.report()
}

func (l *log) refused(_ *nats.Conn, _ *nats.Subscription, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, nats.ErrPermissionViolation) {
		l.refusal = err.Error()
	}
	l.slog.Warn("NATS reports an error", "error", err)
}

// probe finds out whether the server of the connection still answers. If it doesn't, as a
// frozen one, another server is tried, sooner than the connection's own checks would.
func (l *log) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if len(l.conn.Servers()) > 1 && l.conn.IsConnected() && errors.Is(l.conn.FlushWithContext(ctx), context.DeadlineExceeded) {
		_ = l.conn.ForceReconnect() // it fails only after Close
	}
}

// away returns why the servers can't be reached, if this is so for some time.
func (l *log) away() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != "" && time.Since(l.since) > silentLimit {
		return errors.New(l.lost)
	}
	return nil
}

// wrote notes how an append to a partition ended.
func (l *log) wrote(p *partition, err error) {
	l.mu.Lock()
	was, failed := l.failing[p.index]
	switch {
	case err == nil && !failed:
		l.mu.Unlock()
		return
	case err == nil:
		delete(l.failing, p.index)
		l.refusal = ""
		l.slog.Info("hub can be written again", "stream", p.stream)
	default:
		l.failing[p.index] = err.Error()
		if was != err.Error() {
			l.slog.Error("hub can't be written; each append tries again", "stream", p.stream, "error", err)
		}
	}
	l.mu.Unlock()
	l.report()
}

// failed reports whether the last append to a partition failed.
func (l *log) failed(p *partition) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, failed := l.failing[p.index]
	return failed
}

// report tells health whether readings can be stored.
func (l *log) report() {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.lost
	for i := range l.cfg.Partitions {
		if why, ok := l.failing[i]; ok && text == "" {
			text = fmt.Sprintf("readings of %d of %d partitions can't be stored: %s", len(l.failing), l.cfg.Partitions, why)
		}
	}
	l.health.Report("hub", text)
}

// failure classifies an error of NATS.
func (l *log) failure(op, subject string, err error) error {
	var known *fleetscore.Error
	if errors.As(err, &known) {
		return err
	}
	l.mu.Lock()
	refusal := l.refusal
	l.mu.Unlock()
	if refusal != "" {
		err = fmt.Errorf("%w (%s)", err, refusal)
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case errStore:
			if !strings.Contains(api.Description, "maximum") && !strings.Contains(api.Description, "space") {
				break
			}
			fallthrough
		case errAccount, errStorage, errMemory, errResources:
			return fleetscore.Errorf(fleetscore.Exhausted, op, subject, "the NATS servers have no room: %w", err).
				WithHint("give the servers more storage, raise hub.nats.max_mb, or lower hub.retention")
		case errReplicas, errPeers:
			return fleetscore.Errorf(fleetscore.Invalid, op, subject, "the NATS servers can't keep %d copies: %w", l.cfg.Replicas, err).
				WithHint("start a cluster of %d servers or more, or set hub.nats.replicas to 1: then nothing survives the loss of that server", l.cfg.Replicas)
		}
	}
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fleetscore.Errorf(fleetscore.Invalid, op, subject, "%w", err).WithHint("turn JetStream on in the configuration of the NATS servers: jetstream {store_dir: …, sync_interval: always}")
	}
	if errors.Is(err, nats.ErrNoResponders) && op == opOpen {
		return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "the servers answer no question for JetStream: it isn't turned on, or the cluster has no leader").
			WithHint("turn JetStream on in the configuration of the NATS servers, and start a majority of them")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("the NATS servers didn't answer in time: a majority of the stream's servers must run")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "%w", err)
}

// Codes of JetStream's errors that nats.go has no names for.
const (
	errAccount   jetstream.ErrorCode = 10002
	errResources jetstream.ErrorCode = 10023
	errMemory    jetstream.ErrorCode = 10028
	errStorage   jetstream.ErrorCode = 10047
	errPeers     jetstream.ErrorCode = 10005
	errReplicas  jetstream.ErrorCode = 10074
	errStore     jetstream.ErrorCode = 10077 // the description says why
)

// CheckURL judges the addresses of NATS servers.
func CheckURL(list string) error {
	for _, text := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls":
			return errors.New("write the servers' addresses as nats://HOST:4222 or tls://HOST:4222, with commas between them")
		case u.User != nil:
			return errors.New("the address holds a user or a password, which would be shown: put them into a file and name the file in hub.nats.credentials")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "":
			return fmt.Errorf("the address of %s has more than host and port", u.Host)
		}
	}
	return nil
}

// credentials reads a file with a user's credentials: a file that nsc made (.creds), the
// seed of an nkey, or one line "user:password" or "token".
func credentials(file string) ([]nats.Option, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, (&log{}).connectError(err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case strings.Contains(text, "BEGIN NATS USER JWT"):
		return []nats.Option{nats.UserCredentials(file)}, nil
	case strings.Contains(text, "BEGIN USER NKEY SEED"), strings.HasPrefix(text, "SU") && len(text) == 58 && !strings.Contains(text, ":"):
		option, err := nats.NkeyOptionFromSeed(file)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, opOpen, file, "the file holds no valid seed of an nkey: %w", err)
		}
		return []nats.Option{option}, nil
	case text == "" || strings.ContainsAny(text, "\r\n"):
		return nil, fleetscore.Errorf(fleetscore.Invalid, opOpen, file, "the file holds no credentials").
			WithHint("write one line user:password or a token into it, or use the file that nsc made (.creds), or the seed of an nkey")
	}
	if user, password, both := strings.Cut(text, ":"); both {
		return []nats.Option{nats.UserInfo(user, password)}, nil
	}
	return []nats.Option{nats.Token(text)}, nil
}
