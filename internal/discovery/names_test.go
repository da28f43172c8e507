package discovery

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// names is a DNS server in memory. A name has a list of addresses, one for each lookup. The last one is repeated.
type names struct {
	mu    sync.Mutex
	addrs map[string][]string // guarded by mu
}

func (n *names) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe() // not a packet connection, so each message begins with its length
		go n.serve(server)
		return client, nil
	}}
}

func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		length := make([]byte, 2)
		if _, err := io.ReadFull(conn, length); err != nil {
			return
		}
		query := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := n.answer(query)
		if _, err := conn.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...)); err != nil {
			return
		}
	}
}

// answer returns the reply to a query with one question (RFC 1035 section 4).
func (n *names) answer(query []byte) []byte {
	end := 12
	var labels []string
	for query[end] != 0 {
		next := end + 1 + int(query[end])
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	question := query[12 : end+5]
	quadA := question[len(question)-3] == 28
	reply := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)

	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.Join(labels, ".")
	addrs := n.addrs[name]
	if len(addrs) == 0 {
		reply[3] |= 3 // no such name
		return reply
	}
	ip := net.ParseIP(addrs[0])
	raw, mapped := []byte(ip.To4()), strings.Contains(addrs[0], ":")
	if mapped {
		raw = ip.To16()
	}
	if quadA == mapped {
		reply[7] = 1
		reply = append(reply, 0xC0, 12, 0, question[len(question)-3], 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
		reply = append(reply, raw...)
		if len(addrs) > 1 {
			n.addrs[name] = addrs[1:]
		}
	}
	return reply
}
