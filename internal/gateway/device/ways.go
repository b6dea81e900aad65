package device

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

// HTTP sends readings as NDJSON, all of a call in one request, which post makes.
func HTTP(post func(ctx context.Context, body []byte) error) Way { return &overHTTP{post: post} }

type overHTTP struct {
	post func(context.Context, []byte) error
	body []byte
}

// Send implements Way.
func (h *overHTTP) Send(ctx context.Context, list []simulator.Reading) (int, error) {
	h.body = h.body[:0]
	for _, r := range list {
		h.body = r.AppendNDJSON(h.body)
	}
	if err := h.post(ctx, h.body); err != nil {
		return 0, err
	}
	return len(list), nil
}

// Close implements Way.
func (*overHTTP) Close() {}

// Kafka sends readings to a topic as JSON, a record for each, with the device as the record's key. The brokers
// acknowledge a record when all copies have it.
func Kafka(brokers []string, topic string) (Way, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic), kgo.ClientID("fleetscore-simulate"), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(sendLimit), kgo.DialTimeout(10*time.Second), kgo.DisableClientMetrics())
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, sendOp, topic, "%w", err).WithHint("write brokers as host:port, with commas between them")
	}
	return &overKafka{c, topic}, nil
}

const sendOp = "send readings"

type overKafka struct {
	client *kgo.Client
	topic  string
}

// Send implements Way.
func (k *overKafka) Send(ctx context.Context, list []simulator.Reading) (int, error) {
	records := make([]*kgo.Record, len(list))
	for i, r := range list {
		text := r.AppendNDJSON(nil)
		records[i] = &kgo.Record{Key: []byte(r.Device), Value: text[:len(text)-1]}
	}
	results := k.client.ProduceSync(ctx, records...)
	failed := map[*kgo.Record]error{}
	for _, r := range results {
		if r.Err != nil {
			failed[r.Record] = r.Err
		}
	}
	for i, r := range records { // later ones may be in the topic; they are sent again, and count once
		if err := failed[r]; kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || ctx.Err() != nil && err != nil {
			return i, fleetscore.Errorf(fleetscore.Unavailable, sendOp, "topic "+k.topic, "%w", err)
		} else if err != nil {
			return i, fleetscore.Errorf(fleetscore.Invalid, sendOp, "topic "+k.topic, "%w", err).WithHint("look at the names of the brokers and of the topic")
		}
	}
	return len(list), nil
}

// Close implements Way.
func (k *overKafka) Close() { k.client.Close() }
