package mqtt

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// secured is a connection with TLS.
type secured interface{ ConnectionState() tls.ConnectionState }

// metrics are the figures for operators.
type metrics struct {
	stored, rejected, failed, refused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, open func() float64) (*metrics, error) {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetscore_gateway_mqtt_messages_total", Help: "Messages by MQTT by outcome; failed ones couldn't be stored and weren't acknowledged."}, []string{"outcome"})
	m := &metrics{stored: messages.WithLabelValues("stored"), rejected: messages.WithLabelValues("rejected"), failed: messages.WithLabelValues("failed"),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetscore_gateway_mqtt_refused_connections_total", Help: "Connections that ended before a client was admitted."})}
	if reg == nil {
		return m, nil
	}
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleetscore_gateway_mqtt_connections", Help: "Connections that are open."}, open)
	for _, c := range []prometheus.Collector{messages, m.refused, connections} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// teller lets a message into the log at most once a minute for each kind of message, so
// that clients can't fill a disk.
type teller struct {
	mu   sync.Mutex // guards what follows
	last map[string]time.Time
	more map[string]int
}

// turn reports whether a message may be written, and how many weren't before it.
func (t *teller) turn(message string, now time.Time) (more int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last, t.more = map[string]time.Time{}, map[string]int{}
	}
	if last, told := t.last[message]; told && now.Sub(last) < time.Minute {
		t.more[message]++
		return 0, false
	}
	more = t.more[message]
	t.last[message], t.more[message] = now, 0
	return more, true
}
