package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// preparing is a server that wants nodes to be prepared, and then has no work.
type preparing struct {
	dispatch.Protocol
	setup fleetscore.SetupConfig

	mu    sync.Mutex // guards what follows
	beats int
	how   []dispatch.Preparation
	asked bool // for tasks
	bye   bool
}

func (p *preparing) Register(context.Context, dispatch.Hello) (dispatch.Welcome, error) {
	return dispatch.Welcome{Node: fleetscore.Node{State: fleetscore.NodePreparing}, Setup: &p.setup}, nil
}

func (p *preparing) Prepared(_ context.Context, _ fleetscore.NodeID, how dispatch.Preparation) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = append(p.how, how)
	return nil
}

func (p *preparing) Heartbeat(context.Context, fleetscore.NodeID, dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats++
	return dispatch.HeartbeatReply{}, nil
}

func (p *preparing) Lease(context.Context, fleetscore.NodeID, dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
	return dispatch.LeaseReply{Stop: true}, nil
}

func (p *preparing) Goodbye(context.Context, fleetscore.NodeID) error {
	p.bye = true
	return nil
}

// TestSetup: the setup command runs before the node asks for tasks, with the node's name
// in its environment and without its token, while heartbeats go on. If it fails, takes too
// long or may not run, the server is told why with what it wrote, and the node ends.
func TestSetup(t *testing.T) {
	t.Setenv("FLEETSCORE_NODE_TOKEN_FILE", "secret")
	folder := t.TempDir()
	for name, text := range map[string]string{
		"good":    `echo "node $FLEETSCORE_ID of $FLEETSCORE_POOL, $FLEETSCORE_SLOTS slots, $1, token $FLEETSCORE_NODE_TOKEN_FILE."; sleep 0.3`,
		"bad":     "echo installing; echo no such package >&2; exit 3",
		"endless": "echo hm; sleep 600",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		command       string
		folders       []string
		output, fails string
	}{
		{"good", []string{"/nowhere", folder}, "node n of cpu, 2 slots, fast, token .\n", ""},
		{"bad", []string{folder}, "installing\nno such package\n", `exit status 3; its last line: "no such package"`},
		{"endless", []string{folder}, "hm\n", "it didn't end within 500ms"},
		{"good", nil, "", "the program can't be found"},
		{filepath.Join(folder, "good"), []string{t.TempDir()}, "", "doesn't lie in a folder whose programs may be run"},
	} {
		server := &preparing{setup: fleetscore.SetupConfig{Command: []string{tt.command, "fast"}, Timeout: fleetscore.Duration(500 * time.Millisecond)}}
		n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 2}, Heartbeat: 20 * time.Millisecond, Commands: tt.folders}, Deps{Server: server})
		if err != nil {
			t.Fatal(err)
		}
		err = n.Run(t.Context())
		if (tt.fails == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: the node ended with %v, want %q", tt.command, err, tt.fails)
		}
		if len(server.how) != 1 || !strings.Contains(server.how[0].Error, tt.fails) || (tt.fails == "") != (server.how[0].Error == "") || string(server.how[0].Output) != tt.output {
			t.Errorf("%s: the server was told %q", tt.command, server.how)
		}
		if server.asked != (tt.fails == "") || !server.bye {
			t.Errorf("%s: the node asked for tasks: %v, said goodbye: %v", tt.command, server.asked, server.bye)
		}
		if tt.command == "good" && len(tt.folders) > 1 && server.beats < 3 {
			t.Errorf("%d heartbeats were sent while the command ran", server.beats)
		}
	}
}
