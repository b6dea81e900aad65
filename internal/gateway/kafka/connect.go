package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/fleetscore/fleetscore"
)

// What a connection and a read take at most.
const (
	askLimit      = 10 * time.Second // for one question to the brokers
	fetchBytes    = 16 << 20         // of one answer
	fetchPerPart  = 2 << 20          // of one partition in it
	batchMaxBytes = 64 << 20         // a batch of records, decompressed
)

// options are those of every client. Files are read anew for each session, so that a
// changed password or certificate is used without a restart.
func (r *Reader) options() ([]kgo.Opt, error) {
	k := r.cfg.Kafka
	opts := []kgo.Opt{kgo.SeedBrokers(k.Brokers...), kgo.ClientID("fleetscore"), kgo.DialTimeout(askLimit), kgo.RetryTimeout(askLimit),
		kgo.RequestTimeoutOverhead(askLimit), kgo.MaxDecompressBatchBytes(batchMaxBytes), kgo.DisableClientMetrics()}
	if k.TLS || k.CA != "" || k.Certificate != "" {
		c := &tls.Config{MinVersion: tls.VersionTLS12}
		if k.CA != "" {
			pem, err := os.ReadFile(k.CA)
			if err != nil {
				return nil, r.fail(fleetscore.Invalid, "make the file readable for the server", "the file hub.kafka.ca can't be read: %v", err)
			}
			if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
				return nil, r.fail(fleetscore.Invalid, "write the file of the certificates that sign those of the brokers, in PEM", "the file %s holds no certificate", k.CA)
			}
		}
		if k.Certificate != "" {
			cert, err := tls.LoadX509KeyPair(k.Certificate, k.Key)
			if err != nil {
				return nil, r.fail(fleetscore.Invalid, "write the files of a certificate and its key, in PEM", "the certificate for the brokers can't be read: %v", err)
			}
			c.Certificates = []tls.Certificate{cert}
		}
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	if k.SASL == nil {
		return opts, nil
	}
	text, err := os.ReadFile(k.SASL.PasswordFile)
	if err != nil {
		return nil, r.fail(fleetscore.Invalid, "make the file readable for the server", "the password file can't be read: %v", err)
	}
	user, password := k.SASL.User, strings.TrimRight(string(text), "\r\n")
	var m sasl.Mechanism
	switch k.SASL.Mechanism {
	case "scram-sha-256":
		m = scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	case "scram-sha-512":
		m = scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	default:
		m = plain.Auth{User: user, Pass: password}.AsMechanism()
	}
	return append(opts, kgo.SASL(m)), nil
}

const readOp = "read Kafka topic"

func (r *Reader) fail(kind fleetscore.Kind, hint, format string, args ...any) error {
	return fleetscore.Errorf(kind, readOp, r.cfg.Kafka.Topic, format, args...).WithHint("%s", hint)
}

// explain turns an error of the protocol into words that say what to do.
func (r *Reader) explain(err error) error {
	k := r.cfg.Kafka
	var own *fleetscore.Error
	var unknown *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var network *net.OpError
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return r.fail(fleetscore.Unavailable, "look at hub.kafka.sasl, its user and its password file", "the brokers refuse the user or the password: %v", err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return r.fail(fleetscore.Unavailable, "write the mechanism that the brokers' listener has in hub.kafka.sasl.mechanism", "the brokers don't take the SASL mechanism: %v", err)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return r.fail(fleetscore.NotFound, "create the topic, or correct hub.kafka.topic; this is tried again by itself", "the brokers have no topic %s", k.Topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return r.fail(fleetscore.Unavailable, "let the user describe and read the topic", "the brokers don't let the user read the topic %s", k.Topic)
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return r.fail(fleetscore.Unavailable, "let the user read the group, or write another one in hub.kafka.group", "the brokers don't let the user use the consumer group %s", k.Group)
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress):
		return r.fail(fleetscore.Conflict, "write a group that nothing else uses in hub.kafka.group", "other programs use the consumer group %s", k.Group)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return r.fail(fleetscore.Unavailable, "this is tried again by itself", "the topic lost the records after those that were read")
	case errors.As(err, &unknown), errors.As(err, &record):
		return r.fail(fleetscore.Unavailable, "look at hub.kafka.tls and hub.kafka.ca, and at the port", "no TLS connection to the brokers %s: %v", strings.Join(k.Brokers, ","), err)
	case errors.Is(err, io.EOF):
		return r.fail(fleetscore.Unavailable, "look at hub.kafka.sasl, its user and its password file, and at hub.kafka.tls", "the brokers %s end the connection, as some do after a wrong password or without TLS", strings.Join(k.Brokers, ","))
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return r.fail(fleetscore.Unavailable, "look at hub.kafka.brokers, and whether the brokers run; this is tried again by itself", "the brokers %s can't be reached: %v", strings.Join(k.Brokers, ","), err)
	}
	return r.fail(fleetscore.Unavailable, "if the brokers await TLS or a password, set hub.kafka.tls and hub.kafka.sasl; this is tried again by itself", "the brokers %s don't answer as they should: %v", strings.Join(k.Brokers, ","), err)
}
