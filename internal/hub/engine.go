package hub

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
)

// engine is a running NATS server, reachable from this process only, and a
// connection to it.
type engine struct {
	srv *server.Server
	nc  *nats.Conn
	js  jetstream.JetStream
}

const (
	startTimeout    = time.Minute // recovering a large folder takes a while
	partitionsKey   = "fleetscore_partitions"
	engineMaxStore  = 1 << 50 // no limit of its own: the disk is watched by Append
	engineMaxMemory = 64 << 20
)

func streamOf(partition int) string  { return fmt.Sprintf("readings-%03d", partition) }
func subjectOf(partition int) string { return fmt.Sprintf("readings.%03d", partition) }

// start runs a server over the folder and makes or adopts the streams.
func (h *jetStream) start(ctx context.Context) (*engine, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	srv, err := server.NewServer(&server.Options{
		ServerName:         "fleetscore",
		DontListen:         true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           h.cfg.Dir,
		SyncAlways:         true, // the acknowledgement of a publish means fsync
		MaxPayload:         MaxMessageBytes,
		JetStreamMaxStore:  engineMaxStore,
		JetStreamMaxMemory: engineMaxMemory,
	})
	if err != nil {
		return nil, storageError("open hub", h.cfg.Dir, err)
	}
	srv.SetLoggerV2(serverLog{h.log}, false, false, false)
	srv.Start()
	e := &engine{srv: srv}
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		e.stop()
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "open hub", h.cfg.Dir, "the log engine didn't start").
			WithHint("look for its errors in the log; the disk may be full or read-only")
	}
	e.nc, err = nats.Connect("", nats.InProcessServer(srv), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			h.log.Warn("hub connection", "dir", h.cfg.Dir, "err", err)
		}))
	if err == nil {
		e.js, err = jetstream.New(e.nc)
	}
	if err == nil {
		err = h.adopt(ctx, e)
	}
	if err != nil {
		e.stop()
		return nil, fleetscore.Wrap("open hub", "", err)
	}
	return e, nil
}

// adopt makes the streams of the configuration, or takes those that are there.
func (h *jetStream) adopt(ctx context.Context, e *engine) error {
	there := map[string]*jetstream.StreamInfo{}
	lister := e.js.ListStreams(ctx)
	for info := range lister.Info() {
		there[info.Config.Name] = info
	}
	if err := lister.Err(); err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "open hub", h.cfg.Dir, "%w", err)
	}
	want := strconv.Itoa(h.cfg.Partitions)
	for name, info := range there {
		have := info.Config.Metadata[partitionsKey]
		if have == want {
			continue
		}
		if anyReadings(there) {
			return fleetscore.Errorf(fleetscore.Conflict, "open hub", h.cfg.Dir, "it holds readings in %s partitions, not %s", have, want).
				WithHint("set hub.partitions back to %s; or start with an empty folder: readings not yet in a dataset would have to be sent again", have)
		}
		if err := e.js.DeleteStream(ctx, name); err != nil {
			return fleetscore.Errorf(fleetscore.Unavailable, "open hub", h.cfg.Dir, "%w", err)
		}
		delete(there, name)
	}
	for i := range h.cfg.Partitions {
		info := there[streamOf(i)]
		if info == nil || info.Config.MaxAge != h.cfg.Retention {
			s, err := e.js.CreateOrUpdateStream(ctx, h.streamConfig(i))
			if err != nil {
				return fleetscore.Errorf(fleetscore.Unavailable, "open hub", h.cfg.Dir, "%w", err)
			}
			info = s.CachedInfo()
		}
		h.tails[i].advance(info.State.LastSeq)
	}
	return nil
}

func anyReadings(streams map[string]*jetstream.StreamInfo) bool {
	for _, info := range streams {
		if info.State.LastSeq > 0 {
			return true
		}
	}
	return false
}

func (h *jetStream) streamConfig(partition int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        streamOf(partition),
		Subjects:    []string{subjectOf(partition)},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      h.cfg.Retention,
		Duplicates:  min(h.cfg.Retention, 2*time.Minute), // unused, but may not exceed MaxAge
		AllowDirect: true,
		DenyDelete:  true,
		Metadata:    map[string]string{partitionsKey: strconv.Itoa(h.cfg.Partitions)},
	}
}

// stop ends the connection and the server and returns when both have ended.
func (e *engine) stop() {
	if e.nc != nil {
		e.nc.Close()
	}
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
}

// serverLog writes the server's log to slog. Its notices are about starting and
// stopping, which the hub reports itself.
type serverLog struct{ log *slog.Logger }

func (l serverLog) emit(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats: "+fmt.Sprintf(format, args...))
	}
}

func (l serverLog) Noticef(format string, args ...any) { l.emit(slog.LevelDebug, format, args) }
func (l serverLog) Warnf(format string, args ...any)   { l.emit(slog.LevelWarn, format, args) }
func (l serverLog) Errorf(format string, args ...any)  { l.emit(slog.LevelError, format, args) }
func (l serverLog) Fatalf(format string, args ...any)  { l.emit(slog.LevelError, format, args) }
func (l serverLog) Debugf(format string, args ...any)  {}
func (l serverLog) Tracef(format string, args ...any)  {}
