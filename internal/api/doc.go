// Package api is the HTTP interface of a server for programs, the command line and
// nodes. Handlers translate between HTTP and the other packages; they decide nothing
// themselves. The OpenAPI 3.1 document at /api/v1/openapi.json is made from the same
// Go types that the handlers use.
//
// It starts no goroutine, keeps no state but opened tables, and its handler is safe
// for concurrent use. It does not serve pages (package portal does) and does not
// listen (package cli does).
//
// # Paths
//
// All below /api/v1. Lists are {"items": […], "next": "…"}: while next isn't
// empty, the same request with it as cursor (before or after, as named below)
// continues the list.
//
//	GET  /health                                  Health: 200 if all parts work, else 503; needs no token, but details do
//	GET  /openapi.json                            the OpenAPI document; needs no token
//	GET  /config?version=                         text of the fleet.yaml in force, or of an earlier version (application/yaml), header X-Fleetscore-Version
//	GET  /config/versions                         [ConfigVersion], newest first
//	PUT  /config?name=                            apply a fleet.yaml; messages contain name → Applied
//	POST /jobs                                    {pipeline, from?, to?} → Job; without from and to, the next due interval
//	GET  /jobs?pipeline=&state=&limit=&before=    list of Job, newest first, with counts per state
//	GET  /jobs/{id}?wait=&until=                  Job; with wait, answers once the job ended (until=ended) or started (until=started), or after that time
//	POST /jobs/{id}/cancel                        Job
//	GET  /jobs/{id}/tasks                         list of TaskDetail: Task and its attempts
//	GET  /jobs/{id}/coverage?outcome=&limit=&after=  list of Item, in the order of their keys
//	GET  /jobs/{id}/logs                          list of Log
//	GET  /jobs/{id}/logs/{index}/{attempt}/{stream}?from=  the log (text/plain), from a byte on
//	GET  /schedules                               list of Schedule
//	GET  /schedules/{pipeline}/occurrences?limit= list of Occurrence, newest first
//	POST /schedules/{pipeline}/pause, resume      Paused
//	POST /schedules/{pipeline}/trigger            Job
//	GET  /pools                                   list of Pool
//	GET  /pools/{name}                            PoolDetail
//	GET  /pools/{name}/history?since=             PoolHistory: its jobs, how long their tasks ran and waited
//	POST /pools/{name}/join-tokens                {expires?} → NewToken, with its secret
//	GET  /servers                                 list of Server
//	GET  /nodes?pool=                             list of Node
//	DELETE /nodes/{id}                            nothing → 204; ends a node that has joined, and its credential
//	GET  /datasets                                list of Dataset
//	GET  /datasets/{name}                         Dataset
//	POST /datasets/{name}/rows?key=&time=&values=&complete_until=  rows as CSV or NDJSON, also compressed, or Parquet → Uploaded
//	GET  /fleets                                  list of Fleet
//	GET  /fleets/{name}                           Fleet, with what is wrong with its models
//	POST /fleets/{name}/sync                      Fleet; checks the models now and compiles changed ones to a new generation
//	PUT  /fleets/{name}/models/{model}            a model's bytes → Blob
//	GET  /store?prefix=&delimiter=&limit=&after=  list of Blob
//	GET  /store/{name…}                           a blob's bytes
//	GET  /whoami                                  Caller: the role and name of the token that was sent
//	POST /sign-in-links                           SignInLink: a code that signs a browser in once
//	GET  /tokens?limit=&after=                    list of Token
//	POST /tokens                                  {role, name, expires?} → NewToken, with its secret
//	DELETE /tokens/{name}                         nothing → 204
//	GET  /hub                                     readings taken and rejected, and how far topics of Kafka were read
//	GET  /queries                                 list of the queries' status
//	POST /hubs/{hub}/messages                     readings; the gateway's own handler
//
// The node protocol, with the token of nodes and the types of package dispatch:
//
//	POST /nodes                                   Hello → Welcome: the Node, and its setup command
//	POST /nodes/join                              Join → Joined; with a one-time token
//	POST /nodes/{id}/prepared                     Preparation → 204
//	GET  /mounts                                  Mounts
//	POST /mounts/{name}/check                     MountCheck → MountReports, of the server or of a pool's nodes
//	POST /nodes/{id}/lease                        LeaseRequest → LeaseReply; waits for work
//	POST /nodes/{id}/heartbeat                    HeartbeatRequest → HeartbeatReply
//	POST /nodes/{id}/goodbye                      nothing → 204
//	POST /leases/{id}/logs                        LogChunk → 204
//	POST /leases/{id}/complete                    Result → 204
//
// # Errors
//
// Every failure is {"kind", "op", "subject", "message", "hint"} with the status
// that belongs to the kind, except that a body above its limit is 413 and a
// missing or wrong token 401, a role that may not do it 403, and too many wrong
// tokens 429. Package access holds the table of who may do what.
package api
