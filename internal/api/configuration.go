package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// Health says whether all parts of the server work, and which release it is.
type Health struct {
	Status   string    `json:"status" enum:"ok,failing" doc:"failing: at least one part doesn't work, and the HTTP status is 503"`
	Version  string    `json:"version"`
	Problems []Failing `json:"problems" nullable:"false" doc:"the parts that don't work, and warnings; empty without a token of the role viewer or above"`
}

// Failing is one part that doesn't work, or a warning.
type Failing obs.Problem

type healthOutput struct {
	Status int
	Body   Health
}

// Applied says which version of the configuration is in force.
type Applied struct {
	Version   int64    `json:"version" doc:"counts up with each change"`
	Pipelines []string `json:"pipelines" nullable:"false"`
	DryRun    bool     `json:"dry_run,omitempty" doc:"nothing was applied; version is the version in force"`
	// Changes are compared with the configuration that was in force.
	Changes  []config.Change `json:"changes" nullable:"false" doc:"keys that were added, removed or changed"`
	Warnings []string        `json:"warnings" nullable:"false" doc:"settings that are allowed but are most likely mistakes"`
}

type configText struct {
	ContentType string `header:"Content-Type"`
	Version     string `header:"X-Fleetscore-Version"`
	Body        []byte
}

func (s *server) registerConfig(api huma.API) {
	add(api, huma.Operation{OperationID: "health", Method: http.MethodGet, Path: "/health", Summary: "Whether all parts of the server work",
		Description: "200 while all parts work, 503 when at least one doesn't. With warnings alone the status is 200. Details need a token of the role viewer.",
		Responses:   map[string]*huma.Response{"503": {Description: "a part doesn't work; the body is the same"}}}, s.health)
	add(api, huma.Operation{OperationID: "list servers", Method: http.MethodGet, Path: "/servers", Summary: "The servers that share the work, and which of them leads"},
		func(ctx context.Context, _ *struct{}) (*body[List[fleetscore.Server]], error) {
			if s.deps.Servers == nil {
				return answerList[fleetscore.Server](nil, ""), nil
			}
			all, err := s.deps.Servers(ctx)
			return answerList(all, ""), err
		})
	add(api, huma.Operation{OperationID: "read configuration", Method: http.MethodGet, Path: "/config", Summary: "The fleet.yaml in force, or an earlier version",
		Responses: plain("200", "application/yaml")}, s.getConfig)
	add(api, huma.Operation{OperationID: "list configurations", Method: http.MethodGet, Path: "/config/versions", Summary: "The configurations that were applied, newest first"}, s.listConfigs)
	add(api, huma.Operation{OperationID: "apply configuration", Method: http.MethodPut, Path: "/config", Summary: "Apply a fleet.yaml",
		MaxBodyBytes: config.MaxBytes + 1024}, s.putConfig)
}

// plain documents an answer that isn't JSON.
func plain(status, contentType string) map[string]*huma.Response {
	return map[string]*huma.Response{status: {Description: "The content", Content: map[string]*huma.MediaType{
		contentType: {Schema: &huma.Schema{Type: huma.TypeString}}}}}
}

// healthTimeout bounds the check of the ledger, because the health must be answered
// especially when a part hangs.
const healthTimeout = 5 * time.Second

func (s *server) health(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	problems := s.deps.Health.Problems()
	if _, err := s.deps.Ledger.CountJobs(ctx); err != nil {
		problems = append([]obs.Problem{{Part: "ledger", Problem: err.Error(), Since: s.now().UTC()}},
			slices.DeleteFunc(problems, func(p obs.Problem) bool { return p.Part == "ledger" })...)
	}
	out := &healthOutput{Status: http.StatusOK, Body: Health{Status: "ok", Version: s.cfg.Version, Problems: []Failing{}}}
	details := access.CallerOf(ctx).Role.May(fleetscore.RoleViewer)
	for _, p := range problems {
		if !p.Warning {
			out.Status, out.Body.Status = http.StatusServiceUnavailable, "failing"
		}
		if details {
			out.Body.Problems = append(out.Body.Problems, Failing(p))
		}
	}
	return out, nil
}

// ConfigVersion is a configuration that was applied.
type ConfigVersion struct {
	Version int64     `json:"version"`
	Applied time.Time `json:"applied"`
	InForce bool      `json:"in_force"`
}

// maxConfigs is how many versions are listed. The ledger keeps no more.
const maxConfigs = 1000

func (s *server) listConfigs(ctx context.Context, _ *struct{}) (*body[List[ConfigVersion]], error) {
	all, err := s.deps.Ledger.ConfigVersions(ctx, maxConfigs)
	if err != nil {
		return nil, err
	}
	out := make([]ConfigVersion, len(all))
	for i, v := range all {
		out[i] = ConfigVersion{Version: v.Version, Applied: v.Applied, InForce: i == 0}
	}
	return answerList(out, ""), nil
}

type getConfigInput struct {
	Version int64 `query:"version" minimum:"0" doc:"an earlier version; 0 or absent means the one in force"`
}

func (s *server) getConfig(ctx context.Context, in *getConfigInput) (*configText, error) {
	_, text, version, err := s.deps.Ledger.Config(ctx)
	if err == nil && in.Version != 0 && in.Version != version {
		var v ledger.ConfigVersion
		v, err = s.deps.Ledger.ConfigVersion(ctx, in.Version)
		text, version = v.YAML, v.Version
	}
	if err != nil {
		return nil, err
	}
	return &configText{ContentType: "application/yaml", Version: strconv.FormatInt(version, 10), Body: []byte(text)}, nil
}

type putConfigInput struct {
	Name    string `query:"name" doc:"the file's name for messages; if the name is an absolute path, ./ in fleet paths is relative to its folder"`
	Author  string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	DryRun  bool   `query:"dry_run" doc:"only check the configuration, and report what would change"`
	RawBody []byte `contentType:"application/yaml"`
}

func (s *server) putConfig(ctx context.Context, in *putConfigInput) (*body[Applied], error) {
	name := in.Name
	if name == "" {
		name = "fleet.yaml"
	}
	s.parsing.Lock()
	cfg, err := config.Parse(name, in.RawBody)
	s.parsing.Unlock()
	if err != nil {
		return nil, err
	}
	warnings, err := s.deps.Check(ctx, cfg)
	if err != nil {
		return nil, err
	}
	out := Applied{Pipelines: slices.Sorted(maps.Keys(cfg.Pipelines)), DryRun: in.DryRun, Warnings: append([]string{}, warnings...)}
	had, _, version, err := s.deps.Ledger.Config(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	if out.Changes, err = config.Diff(had, cfg); err != nil {
		return nil, err
	}
	if in.DryRun {
		out.Version = version
		return answer(out), nil
	}
	out.Version, err = s.deps.Ledger.PutConfig(ctx, s.now(), string(in.RawBody), cfg)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "apply", "version "+strconv.FormatInt(out.Version, 10))
	return answer(out), nil
}

// audit notes who changed what: the token's name or, for callers without a token of
// the ledger, the name that they gave. The change has already happened, so an error
// of noting it is logged, not returned.
func (s *server) audit(ctx context.Context, author, what, subject string) {
	who := s.caller(ctx, author)
	if err := s.deps.Ledger.Audit(ctx, ledger.AuditEntry{At: s.now(), Who: who, What: what, Subject: subject}); err != nil {
		s.log.Error("audit", "who", who, "what", what, "subject", subject, "err", err)
	}
}

// caller is who asks, as the audit names them.
func (s *server) caller(ctx context.Context, author string) string {
	who := access.CallerOf(ctx).Name
	if author != "" && (who == access.Local || who == access.Everybody) {
		who = author + " (" + who + ")"
	}
	return who
}
