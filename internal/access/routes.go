package access

import (
	"context"
	"net/http"
	"time"

	"github.com/fleetscore/fleetscore"
)

// What a route needs if it needs no particular role: nothing, or any valid token.
const (
	Anyone fleetscore.Role = "anyone"
	Known  fleetscore.Role = "any token"
)

// Route says what one route needs.
type Route struct {
	Need fleetscore.Role // the least role
	Body int64           // the largest body in bytes, or one of the values below
}

// Bodies whose limit is set elsewhere.
const (
	bodyUpload  = -1 // Config.MaxUploadBytes
	bodyBlob    = -2 // Config.MaxBlobBytes
	bodyHandler = -3 // the handler bounds size and time itself
)

const (
	noBody    = 0
	formBody  = 4 << 10
	smallBody = 1 << 20
	nodeBody  = 16 << 20 // a log chunk, or the result of a task with its list of files
)

// Table says what every route of the server needs. A route without an entry can't be
// registered. docs/security.md shows the table.
var Table = map[string]Route{
	"GET /api/v1/health":                {Anyone, noBody}, // details for viewers only
	"GET /api/v1/openapi.json":          {Anyone, noBody},
	"GET /api/v1/openapi.yaml":          {Anyone, noBody},
	"GET /api/v1/openapi-3.0.json":      {Anyone, noBody},
	"GET /api/v1/openapi-3.0.yaml":      {Anyone, noBody},
	"GET /api/v1/whoami":                {Known, noBody},
	"/api/v1/":                          {Known, noBody}, // any other path: not found
	"POST /api/v1/sign-in-links":        {fleetscore.RoleViewer, smallBody},
	"GET /api/v1/tokens":                {fleetscore.RoleAdministrator, noBody},
	"POST /api/v1/tokens":               {fleetscore.RoleAdministrator, smallBody},
	"POST /api/v1/tokens/{name}/rotate": {fleetscore.RoleAdministrator, smallBody},
	"DELETE /api/v1/tokens/{name}":      {fleetscore.RoleAdministrator, smallBody},
	"GET /api/v1/config":                {fleetscore.RoleViewer, noBody},
	"GET /api/v1/config/versions":       {fleetscore.RoleViewer, noBody},
	"PUT /api/v1/config":                {fleetscore.RoleAdministrator, smallBody + 1024},
	"GET /api/v1/jobs":                  {fleetscore.RoleViewer, noBody},
	"POST /api/v1/jobs":                 {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/backfills":            {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/jobs/{id}":             {fleetscore.RoleViewer, noBody},
	"POST /api/v1/jobs/{id}/cancel":     {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/jobs/{id}/rerun":      {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/jobs/{id}/tasks":       {fleetscore.RoleViewer, noBody},

	"GET /api/v1/jobs/{id}/coverage":                        {fleetscore.RoleViewer, noBody},
	"GET /api/v1/jobs/{id}/logs":                            {fleetscore.RoleViewer, noBody},
	"GET /api/v1/jobs/{id}/logs/{index}/{attempt}/{stream}": {fleetscore.RoleViewer, noBody},
	"GET /api/v1/schedules":                                 {fleetscore.RoleViewer, noBody},
	"GET /api/v1/schedules/{pipeline}/occurrences":          {fleetscore.RoleViewer, noBody},
	"POST /api/v1/schedules/{pipeline}/pause":               {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/schedules/{pipeline}/resume":              {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/schedules/{pipeline}/trigger":             {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/pools":                                     {fleetscore.RoleViewer, noBody},
	"GET /api/v1/pools/{name}":                              {fleetscore.RoleViewer, noBody},
	"GET /api/v1/pools/{name}/history":                      {fleetscore.RoleViewer, noBody},
	"GET /api/v1/mounts":                                    {fleetscore.RoleViewer, noBody},
	"POST /api/v1/mounts/{name}/check":                      {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/servers":                                   {fleetscore.RoleViewer, noBody},
	"GET /api/v1/nodes":                                     {fleetscore.RoleViewer, noBody},
	"GET /api/v1/nodes/{id}/log":                            {fleetscore.RoleViewer, noBody},
	"GET /api/v1/datasets":                                  {fleetscore.RoleViewer, noBody},
	"GET /api/v1/datasets/{name}":                           {fleetscore.RoleViewer, noBody},
	"POST /api/v1/datasets/{name}/rows":                     {fleetscore.RoleOperator, bodyUpload},
	"POST /api/v1/maintenance":                              {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/fleets":                                    {fleetscore.RoleViewer, noBody},
	"GET /api/v1/fleets/{name}":                             {fleetscore.RoleViewer, noBody},
	"GET /api/v1/fleets/{name}/models":                      {fleetscore.RoleViewer, noBody},
	"GET /api/v1/fleets/{name}/diff":                        {fleetscore.RoleViewer, noBody},
	"GET /api/v1/pipelines/{pipeline}/diff":                 {fleetscore.RoleViewer, noBody},
	"GET /api/v1/pipelines/{pipeline}/predictions":          {fleetscore.RoleViewer, noBody},
	"POST /api/v1/fleets/{name}/sync":                       {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/fleets/{name}/release":                    {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/fleets/{name}/versions":                   {fleetscore.RoleOperator, bodyUpload},
	"GET /api/v1/fleets/{name}/versions":                    {fleetscore.RoleViewer, noBody},
	"GET /api/v1/fleets/{name}/versions/{version}":          {fleetscore.RoleViewer, noBody},
	"POST /api/v1/fleets/{name}/rollback":                   {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/quarantine":                                {fleetscore.RoleViewer, noBody},
	"PUT /api/v1/fleets/{name}/models/{model...}":           {fleetscore.RoleOperator, bodyUpload},
	"GET /api/v1/store":                                     {fleetscore.RoleViewer, noBody},
	"GET /api/v1/store/{name...}":                           {fleetscore.RoleViewer, noBody},
	"GET /api/v1/images":                                    {fleetscore.RoleViewer, noBody},
	"POST /api/v1/images/lock":                              {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/images/remove":                            {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/images/gc":                                {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/clock":                                     {fleetscore.RoleViewer, noBody},
	"POST /api/v1/clock/accept":                             {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/hub":                                       {fleetscore.RoleViewer, noBody},
	"GET /api/v1/queries":                                   {fleetscore.RoleViewer, noBody},
	"GET /api/v1/sensors":                                   {fleetscore.RoleViewer, noBody},
	"GET /api/v1/sensors/summary":                           {fleetscore.RoleViewer, noBody},
	"GET /api/v1/hub/keys":                                  {fleetscore.RoleViewer, noBody},
	"GET /api/v1/hub/readings":                              {fleetscore.RoleViewer, noBody},
	"POST /api/v1/queries/{name}/replay":                    {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/datasets/{name}/late":                      {fleetscore.RoleViewer, noBody},
	"POST /api/v1/datasets/{name}/late/redrive":             {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/datasets/{name}/late/drop":                {fleetscore.RoleOperator, smallBody},
	"GET /api/v1/rejected":                                  {fleetscore.RoleViewer, noBody},
	"GET /api/v1/rejected/{id}":                             {fleetscore.RoleViewer, noBody},
	"POST /api/v1/rejected/redrive":                         {fleetscore.RoleOperator, smallBody},
	"POST /api/v1/rejected/drop":                            {fleetscore.RoleOperator, smallBody},
	"OPTIONS /api/v1/hubs/{hub}/messages":                   {Anyone, noBody}, // says that events may be sent, with a token
	"/api/v2/write":                                         {fleetscore.RoleDevice, bodyHandler},
	"/write":                                                {fleetscore.RoleDevice, bodyHandler},
	"/api/v1/hubs/{hub}/messages":                           {fleetscore.RoleDevice, bodyHandler},
	"POST /{hub}/messages":                                  {fleetscore.RoleDevice, bodyHandler}, // as senders of Event Hubs send
	"POST /{hub}/partitions/{partition}/messages":           {fleetscore.RoleDevice, bodyHandler},
	"POST /{hub}/publishers/{publisher}/messages":           {fleetscore.RoleDevice, bodyHandler},

	"POST /api/v1/pools/{name}/join-tokens":   {fleetscore.RoleAdministrator, smallBody},
	"POST /api/v1/nodes/join":                 {fleetscore.RoleJoin, smallBody},
	"DELETE /api/v1/nodes/{id}":               {fleetscore.RoleAdministrator, smallBody},
	"POST /api/v1/nodes":                      {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/nodes/{id}/prepared":        {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/nodes/{id}/lease":           {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/nodes/{id}/heartbeat":       {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/nodes/{id}/goodbye":         {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/leases/{id}/logs":           {fleetscore.RoleNode, nodeBody},
	"POST /api/v1/leases/{id}/complete":       {fleetscore.RoleNode, nodeBody},
	"GET /api/v1/leases/{id}/blobs":           {fleetscore.RoleNode, noBody},
	"GET /api/v1/leases/{id}/stat/{name...}":  {fleetscore.RoleNode, noBody},
	"GET /api/v1/leases/{id}/blobs/{name...}": {fleetscore.RoleNode, noBody},
	"PUT /api/v1/leases/{id}/blobs/{name...}": {fleetscore.RoleNode, bodyBlob},

	"GET /v2/{name...}":    {fleetscore.RoleImagePull, bodyHandler}, // images of the registry
	"POST /v2/{name...}":   {fleetscore.RoleImagePush, bodyHandler},
	"PUT /v2/{name...}":    {fleetscore.RoleImagePush, bodyHandler},
	"PATCH /v2/{name...}":  {fleetscore.RoleImagePush, bodyHandler},
	"DELETE /v2/{name...}": {fleetscore.RoleImagePush, bodyHandler}, // a cancelled upload; anything else needs the role operator

	"GET /metrics":            {fleetscore.RoleViewer, noBody},
	"GET /{$}":                {fleetscore.RoleViewer, noBody}, // with ?token= of a link it signs the browser in
	"GET /jobs/{id}":          {fleetscore.RoleViewer, noBody},
	"GET /pools/{name}":       {fleetscore.RoleViewer, noBody},
	"GET /fleets/{name}":      {fleetscore.RoleViewer, noBody},
	"GET /servers":            {fleetscore.RoleViewer, noBody},
	"GET /sensors":            {fleetscore.RoleViewer, noBody},
	"GET /sensors/{pipeline}": {fleetscore.RoleViewer, noBody},
	"GET /shadows/{pipeline}": {fleetscore.RoleViewer, noBody},
	"GET /style.css":          {Anyone, noBody},
	"GET /sign-in":            {Anyone, noBody},
	"POST /sign-in":           {Anyone, formBody},
	"GET " + StartPath:        {Anyone, noBody}, // to the OpenID provider
	"GET " + ReturnPath:       {Anyone, noBody}, // and back
	"POST /sign-out":          {Anyone, formBody},
	"/":                       {fleetscore.RoleViewer, noBody}, // any other page: not found
}

// Deny answers a request that is refused.
type Deny func(w http.ResponseWriter, r *http.Request, why *Refusal)

// Mux passes accepted requests on to the handlers. Build it with Control.NewMux,
// register all handlers, check Err, and then serve.
type Mux struct {
	control *Control
	deny    Deny
	routes  *http.ServeMux
	err     error
}

// NewMux makes an empty mux whose refusals are answered by deny.
func (d *Control) NewMux(deny Deny) *Mux {
	return &Mux{control: d, deny: deny, routes: http.NewServeMux()}
}

// Err is set if a route without an entry in the table was registered.
func (m *Mux) Err() error { return m.err }

// HandleFunc registers a handler; see Handle.
func (m *Mux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// Handle registers a handler for a pattern of package net/http that has an entry in
// the table. Without one nothing is registered, and Err says so.
func (m *Mux) Handle(pattern string, h http.Handler) {
	route, ok := Table[pattern]
	if !ok {
		m.err = fleetscore.Errorf(fleetscore.Internal, "register route", pattern, "the route has no entry in the table of package access")
		return
	}
	switch route.Body {
	case bodyUpload:
		route.Body = m.control.cfg.MaxUploadBytes
	case bodyBlob:
		route.Body = m.control.cfg.MaxBlobBytes
	}
	m.control.mu.Lock()
	m.control.routes = append(m.control.routes, pattern)
	m.control.mu.Unlock()
	m.routes.Handle(pattern, m.guard(route, h))
}

// Mount hands all paths below a prefix to a handler that is behind a Mux of its own.
func (m *Mux) Mount(prefix string, guarded http.Handler) { m.routes.Handle(prefix, guarded) }

// guard passes on the requests that the route accepts.
func (m *Mux) guard(route Route, h http.Handler) http.Handler {
	d := m.control
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, why := d.judge(r, route.Need)
		if why != nil {
			pace(w, r, 0, discardGrace)
			if why.Status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "60")
				w.Header().Set("Connection", "close")
			}
			m.deny(w, r, why)
			return
		}
		if route.Body != bodyHandler {
			pace(w, r, route.Body, bodyGrace)
		}
		if c.Role != "" {
			defer hold(r.Context())()
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// discardGrace is the time to discard the rest of a body that no handler reads. Only
// after that can the connection serve another request.
const discardGrace = time.Second

// ServeHTTP answers a request, or refuses it.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	why := m.control.checkHost(r)
	if why == nil {
		why = checkOrigin(r)
	}
	if why != nil {
		pace(w, r, 0, discardGrace)
		m.deny(w, r, why)
		return
	}
	m.routes.ServeHTTP(w, r)
}
