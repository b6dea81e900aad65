package fileserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Bounds of a connection.
const (
	mostRecord = 256 << 10 // bytes of a request; the largest honest one is a WRITE of writeSize, which is refused
	mostAtOnce = 16        // requests of a connection that are answered at once
	idleLimit  = 30 * time.Minute
	sendLimit  = time.Minute // to receive the rest of a request that has begun, or to send an answer
)

// Numbers of ONC RPC, RFC 5531.
const (
	rpcVersion = 2
	msgCall    = 0
	msgReply   = 1

	msgAccepted = 0
	msgDenied   = 1

	acceptSuccess      = 0
	acceptProgUnavail  = 1
	acceptProgMismatch = 2
	acceptProcUnavail  = 3
	acceptGarbageArgs  = 4
	acceptSystemErr    = 5

	denyRPCMismatch = 0
	denyAuthError   = 1
	authTooWeak     = 5

	authNone = 0
	authSys  = 1
)

// call is a request without its arguments.
type call struct {
	xid, program, version, procedure uint32
}

// serve answers the requests of one connection until it ends.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	var (
		in      = bufio.NewReader(c)
		slots   = make(chan struct{}, mostAtOnce)
		writing sync.Mutex
		running sync.WaitGroup
	)
	defer running.Wait()
	defer c.Close()
	for {
		record, err := readRecord(c, in)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.log.Debug("a client of the file server is disconnected", "client", c.RemoteAddr().String(), "error", err)
			}
			return
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			reply := s.answer(ctx, record)
			if reply == nil {
				c.Close() // it doesn't speak RPC
				return
			}
			writing.Lock()
			defer writing.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(sendLimit))
			if _, err := c.Write(reply); err != nil {
				c.Close()
			}
		})
	}
}

// readRecord reads a message, which may come in several fragments (RFC 5531, section 11).
func readRecord(c net.Conn, in *bufio.Reader) ([]byte, error) {
	var record []byte
	_ = c.SetReadDeadline(time.Now().Add(idleLimit))
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(sendLimit))
		h := binary.BigEndian.Uint32(head[:])
		n, last := int(h&0x7fffffff), h>>31 == 1
		if n == 0 && !last {
			return nil, errors.New("a request has an empty fragment")
		}
		if len(record)+n > mostRecord {
			return nil, fmt.Errorf("a request has more than %d bytes", mostRecord)
		}
		at := len(record)
		record = append(record, make([]byte, n)...)
		if _, err := io.ReadFull(in, record[at:]); err != nil {
			return nil, err
		}
		if last {
			return record, nil
		}
	}
}

// answer returns the whole reply to a request, with its mark of length; nil if the bytes
// are no request.
func (s *Server) answer(ctx context.Context, record []byte) []byte {
	d := &decoder{rest: record}
	xid, kind, version := d.uint32(), d.uint32(), d.uint32()
	if d.err != nil || kind != msgCall {
		return nil
	}
	e := &encoder{b: make([]byte, 4, 512)}
	e.uint32(xid)
	e.uint32(msgReply)
	if version != rpcVersion {
		e.uint32(msgDenied)
		e.uint32(denyRPCMismatch)
		e.uint32(rpcVersion)
		e.uint32(rpcVersion)
		return e.record()
	}
	c := call{xid, d.uint32(), d.uint32(), d.uint32()}
	flavor := d.uint32()
	d.opaque(400) // who the client says it is, which nobody can check
	d.uint32()
	d.opaque(400)
	if d.err != nil {
		return nil
	}
	if flavor != authNone && flavor != authSys {
		e.uint32(msgDenied)
		e.uint32(denyAuthError)
		e.uint32(authTooWeak)
		return e.record()
	}
	e.uint32(msgAccepted)
	e.uint32(authNone)
	e.uint32(0)
	head := len(e.b)
	e.uint32(acceptSuccess)
	if status := s.carryOut(ctx, c, d, e); status != acceptSuccess {
		e.b = e.b[:head]
		e.uint32(status)
		if status == acceptProgMismatch {
			e.uint32(3)
			e.uint32(3)
		}
	}
	return e.record()
}

// record sets the mark of length in front of a message.
func (e *encoder) record() []byte {
	binary.BigEndian.PutUint32(e.b, uint32(len(e.b)-4)|1<<31)
	return e.b
}

// carryOut appends the results of a call. A defect costs the call alone, not the process.
func (s *Server) carryOut(ctx context.Context, c call, d *decoder, e *encoder) (status uint32) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("the file server has a defect", "program", c.program, "procedure", c.procedure, "panic", r, "stack", string(debug.Stack()))
			status = acceptSystemErr
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallLimit)
	defer cancel()
	var procedures map[uint32]func(context.Context, *decoder, *encoder)
	switch c.program {
	case mountProgram:
		procedures = s.mountProcedures
	case nfsProgram:
		procedures = s.nfsProcedures
	default:
		return acceptProgUnavail
	}
	if c.version != 3 {
		return acceptProgMismatch
	}
	p := procedures[c.procedure]
	if p == nil {
		return acceptProcUnavail
	}
	s.calls.Inc()
	p(ctx, d, e)
	if d.err != nil {
		return acceptGarbageArgs
	}
	return acceptSuccess
}
