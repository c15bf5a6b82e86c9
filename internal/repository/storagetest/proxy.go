package storagetest

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy is the network between a client and a server. It can be cut.
type Proxy struct {
	listener        net.Listener
	network, server string

	mu          sync.Mutex
	down        bool
	connections map[net.Conn]struct{}
	refused     chan struct{} // gets a token for every connection that is refused while somebody waits
	sent        int64         // bytes from clients since watch was called
	watch       func(sent int64)
	delay       time.Duration // of what clients send
	window      int           // bytes that a connection takes in each delay
}

// NewProxy starts a proxy for a server, on a port of the loopback interface.
func NewProxy(t testing.TB, network, server string) *Proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, network: network, server: server, connections: map[net.Conn]struct{}{}, refused: make(chan struct{}, 1)}
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		_ = l.Close() // that is what ends it
		p.Cut()
		serving.Wait()
	})
	return p
}

// Addr is the address that clients connect to.
func (p *Proxy) Addr() *net.TCPAddr { return p.listener.Addr().(*net.TCPAddr) } //nolint:forcetypeassert // of Listen

// URL is the address as a URL of HTTP.
func (p *Proxy) URL() string { return "http://" + p.Addr().String() }

// Cut ends all connections, some in the middle of a message, and every new one.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	p.down = true
	for c := range p.connections {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what is on its way is lost
		}
		_ = c.Close()
	}
	clear(p.connections)
}

// Heal lets connections through again, also those that CutAfter would have cut later.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.watch = false, nil
}

// AwaitRefusal waits until clients were refused n times.
func (p *Proxy) AwaitRefusal(ctx context.Context, n int) {
	for range n {
		select {
		case <-p.refused:
		case <-ctx.Done():
			return
		}
	}
}

// CutAfter cuts the network once clients have sent n bytes from now on. What it returns reports whether that was so.
func (p *Proxy) CutAfter(n int64) (hit func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var cut bool
	p.sent = 0
	p.watch = func(sent int64) {
		if sent >= n {
			cut = true
			p.watch = nil
			p.cut()
		}
	}
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return cut
	}
}

// Delay makes the server one that is far away: what a client sends takes so long, and a connection takes no more than a
// window of bytes in that time.
func (p *Proxy) Delay(delay time.Duration, window int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.window = delay, window
}

// Sent is how many bytes clients have sent since CutAfter was called.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *Proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { p.forward(client) })
	}
}

func (p *Proxy) forward(client net.Conn) {
	defer client.Close() //nolint:errcheck // it may be cut
	server, err := new(net.Dialer).DialContext(context.Background(), p.network, p.server)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	if !p.add(client, server) {
		return
	}
	defer p.remove(client, server)
	var both sync.WaitGroup
	both.Go(func() {
		p.send(server, &counted{client, p}) // ends with the connection
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	both.Wait()
}

// send passes on what a client sends.
func (p *Proxy) send(server io.Writer, client io.Reader) {
	p.mu.Lock()
	delay, window := p.delay, p.window
	p.mu.Unlock()
	if delay == 0 {
		_, _ = io.Copy(server, client)
		return
	}
	tick := time.NewTicker(delay)
	defer tick.Stop()
	for err := error(nil); err == nil; {
		<-tick.C
		var b []byte
		if b, err = readSome(client, window); len(b) > 0 {
			if _, writeErr := server.Write(b); writeErr != nil {
				return
			}
		}
	}
}

// readSome reads what is there.
func readSome(r io.Reader, most int) ([]byte, error) {
	b := make([]byte, most)
	n, err := r.Read(b)
	return b[:n], err
}

func (p *Proxy) add(connections ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range connections {
		p.connections[c] = struct{}{}
	}
	if p.down {
		p.cut()
		select {
		case p.refused <- struct{}{}:
		default: // nobody waits
		}
	}
	return !p.down
}

func (p *Proxy) remove(connections ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range connections {
		delete(p.connections, c)
	}
}

// counted counts what a client sends.
type counted struct {
	io.Reader
	proxy *Proxy
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.proxy.sent += int64(n)
	if c.proxy.watch != nil {
		c.proxy.watch(c.proxy.sent)
	}
	return n, err
}
