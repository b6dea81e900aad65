package portal

import (
	"net/http"
	"time"

	"github.com/fleetscore/fleetscore"
)

// serversPage shows the servers that share the work.
type serversPage struct {
	Now     time.Time // of the page
	Servers []fleetscore.Server
	Leader  *fleetscore.Server // nil if none leads at the moment
}

// refresh is the number of seconds after which a browser loads the page again.
func (serversPage) refresh() int { return 5 }

func (p *Portal) servers(r *http.Request) (any, error) {
	if p.deps.Servers == nil {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "show servers", "", "this server shares its work with no other").
			WithHint("servers share their work if each is started with --shared")
	}
	all, err := p.deps.Servers(r.Context())
	v := serversPage{Now: p.deps.Now().UTC(), Servers: all}
	for i := range all {
		if all[i].State == fleetscore.ServerLeads {
			v.Leader = &all[i]
		}
	}
	return v, err
}
