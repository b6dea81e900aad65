// Command stream measures the stream path: readings over HTTP into a server, which syncs
// them in its hub, aggregates them over windows and writes Parquet files. It starts the
// server, sends readings from several connections as fast as they are answered (or at a
// rate), waits until the query has taken all of them, and prints what that took as JSON.
//
//	go run ./bench/stream -binary ./fleetscore -connections 16 -body 65536
//	go run ./bench/stream -binary ./fleetscore -connections 200 -mqtt 100
//	go run ./bench/stream -write readings.ndjson     the same readings as a file, for peers
//
// The load is made in this process, beside the server and on the same processors. The
// CPU time that is reported is the server's alone.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// setting is what is measured.
type setting struct {
	Binary      string
	Connections int
	BodyBytes   int
	MQTT        int // readings of a message, by MQTT with QoS 1; 0: HTTP
	InFlight    int // messages that a connection by MQTT sends before it waits for the first answer
	Keys        int
	PerSecond   int // readings of a key in a second of event time
	Readings    int
	Rate        int // readings a second of this machine's time; 0: as many as are answered
	Disorder    time.Duration
	Folder      string
}

// result is what one measurement gives.
type result struct {
	Setting      setting
	Readings     int64
	Seconds      float64 // until all were acknowledged
	Rate         float64 // readings a second, until all were acknowledged
	Whole        float64 // the same, until the query had taken all
	CPUPerM      float64 // CPU seconds of the server per million readings
	P50, P99     float64 // of the acknowledgement, in milliseconds
	Rows         int64   // committed
	Other        int64   // readings that didn't count; must be 0
	Windows      int     // open at the end
	HeldMB       float64 // memory of the windows, as the server estimates it
	PeakMB       float64 // the server's peak memory
	GeneratorCPU float64 // CPU seconds of this process per million readings
}

func main() {
	var s setting
	flag.StringVar(&s.Binary, "binary", "fleetscore", "the program to measure")
	flag.IntVar(&s.Connections, "connections", 16, "connections")
	flag.IntVar(&s.BodyBytes, "body", 64<<10, "bytes of a request's body")
	flag.IntVar(&s.MQTT, "mqtt", 0, "send by MQTT with QoS 1, so many readings in a message, instead of HTTP")
	flag.IntVar(&s.InFlight, "in-flight", 16, "messages that a connection by MQTT sends before it waits for the first one's answer")
	flag.IntVar(&s.Keys, "keys", 10_000, "sensors")
	flag.IntVar(&s.PerSecond, "per-second", 1, "readings of a sensor in a second of event time: with 1 there is a row for 5 readings")
	flag.IntVar(&s.Readings, "readings", 20_000_000, "readings to send")
	flag.IntVar(&s.Rate, "rate", 0, "readings to send in a second; 0 sends as fast as they are answered")
	flag.StringVar(&s.Folder, "dir", "", "folder that the server uses and that stays; none: a temporary one")
	flag.DurationVar(&s.Disorder, "disorder", 2*time.Second, "hub.disorder: with few sensors, requests that are sent at the same time lie further apart in event time")
	write := flag.String("write", "", "file to write the readings into, instead of sending them")
	flag.Parse()
	if *write != "" {
		if err := writeFile(*write, s); err != nil {
			fmt.Fprintln(os.Stderr, "bench/stream:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := measure(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/stream:", err)
		os.Exit(1)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	_ = e.Encode(out)
}

func measure(ctx context.Context, s setting) (result, error) {
	r := result{Setting: s}
	srv, err := startServer(ctx, s)
	if err != nil {
		return r, err
	}
	defer srv.stop()
	before, mine := srv.cpu(), ownCPU()
	began := time.Now()
	sent, waits, err := send(ctx, s, srv)
	if err != nil {
		return r, err
	}
	r.Readings, r.Seconds = sent, time.Since(began).Seconds()
	r.Rate = float64(sent) / r.Seconds
	r.GeneratorCPU = (ownCPU() - mine) / float64(sent) * 1e6
	st, err := srv.taken(ctx, sent)
	if err != nil {
		return r, err
	}
	r.Whole = float64(sent) / time.Since(began).Seconds()
	r.CPUPerM = (srv.cpu() - before) / float64(sent) * 1e6
	r.Rows, r.Other, r.Windows, r.HeldMB = st.rows, st.other, st.windows, float64(st.held)/1e6
	r.P50, r.P99 = percentile(waits, 0.5), percentile(waits, 0.99)
	r.PeakMB = srv.peak()
	return r, nil
}
