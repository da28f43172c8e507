package discovery

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// Policy permits addresses, beside the public ones, for a URL that the operator did not choose. The zero value
// permits only public addresses. Every policy refuses link-local, multicast, unspecified and reserved
// addresses, and those of cloud metadata services.
//
// It is stored beside its endpoint.
type Policy struct {
	// Loopback permits 127.0.0.0/8 and ::1.
	Loopback bool `json:"loopback,omitempty"`
	// Private permits the addresses of private networks: RFC 1918, RFC 4193 and RFC 6598.
	Private bool `json:"private,omitempty"`
}

// policyFor returns the policy for the URLs in an answer from addr: a server inside the network may name neighbours.
// addr must be the address of the answer's connection. With the address of another lookup, a public server could get
// access to the private network: it would resolve its name there once.
func policyFor(addr netip.Addr) Policy {
	kind, _ := classify(addr)
	return Policy{Loopback: kind == loopback, Private: kind == private}
}

// Or returns the policy for a call. If all is set, the operator's current allow_private_addresses, it permits
// loopback and private addresses too.
func (p Policy) Or(all bool) Policy {
	return Policy{Loopback: p.Loopback || all, Private: p.Private || all}
}

// AddressError reports an address refused by the policy, and so not called.
type AddressError struct {
	// Addr is the address in plain form.
	Addr netip.Addr
	// Kind is the kind of address: "private", "loopback", "link-local" and the like.
	Kind string
	// Never is set if every policy refuses the address.
	Never bool
}

// Error reads "10.0.0.1 (private) is not called without allow_private_addresses=true".
func (e *AddressError) Error() string {
	if e.Never {
		return fmt.Sprintf("%s (%s) is never called", e.Addr, e.Kind)
	}
	return fmt.Sprintf("%s (%s) is not called without allow_private_addresses=true", e.Addr, e.Kind)
}

// Check returns an *AddressError if the policy does not permit the address.
func (p Policy) Check(addr netip.Addr) error {
	kind, name := classify(addr)
	if kind == public || kind == loopback && p.Loopback || kind == private && p.Private {
		return nil
	}
	return &AddressError{Addr: addr.Unmap(), Kind: name, Never: kind == never}
}

// Control is a net.Dialer.Control. The dialer calls it with the resolved address, before it connects to that address:
// a second lookup, which could differ, is not made.
func (p Policy) Control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return &AddressError{Kind: "unreadable", Never: true}
	}
	return p.Check(addr.Addr())
}

type kind int

const (
	public kind = iota
	loopback
	private
	never
)

// special lists the kinds of IPv4 and IPv6 addresses: the registries of special-purpose addresses (RFC 6890), and
// addresses reserved by clouds. The first match counts.
var special = []struct {
	prefix netip.Prefix
	kind   kind
	name   string
}{
	// Cloud services that give credentials to any caller inside, at addresses otherwise counted as private or public.
	// Most other clouds use a link-local address.
	{netip.MustParsePrefix("100.100.100.200/32"), never, "cloud metadata"},    // Alibaba
	{netip.MustParsePrefix("168.63.129.16/32"), never, "cloud metadata"},      // Azure
	{netip.MustParsePrefix("fd00:ec2::/32"), never, "cloud metadata"},         // AWS
	{netip.MustParsePrefix("fd20:ce::/32"), never, "cloud metadata"},          // Google
	{netip.MustParsePrefix("fd00:42::42/128"), never, "cloud metadata"},       // Scaleway
	{netip.MustParsePrefix("fd00:c1::/32"), never, "cloud metadata"},          // Oracle
	{netip.MustParsePrefix("fd00:100::100:200/128"), never, "cloud metadata"}, // Alibaba
	{netip.MustParsePrefix("fd00:a9fe:a9fe::/48"), never, "cloud metadata"},   // Akamai

	{netip.MustParsePrefix("127.0.0.0/8"), loopback, "loopback"},
	{netip.MustParsePrefix("10.0.0.0/8"), private, "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), private, "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), private, "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), private, "private"}, // RFC 6598: carriers, but also Kubernetes
	{netip.MustParsePrefix("0.0.0.0/8"), never, "unspecified"},   // Linux connects 0.0.0.0 to loopback
	{netip.MustParsePrefix("169.254.0.0/16"), never, "link-local"},
	{netip.MustParsePrefix("192.0.0.0/24"), never, "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), never, "documentation"},
	{netip.MustParsePrefix("198.51.100.0/24"), never, "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), never, "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), never, "reserved"}, // 6to4 relays
	{netip.MustParsePrefix("198.18.0.0/15"), never, "benchmark"},
	{netip.MustParsePrefix("224.0.0.0/4"), never, "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), never, "reserved"},
	{netip.MustParsePrefix("0.0.0.0/0"), public, "public"},

	{netip.MustParsePrefix("::1/128"), loopback, "loopback"},
	{netip.MustParsePrefix("::/128"), never, "unspecified"},
	{netip.MustParsePrefix("fc00::/7"), private, "private"},
	{netip.MustParsePrefix("fe80::/10"), never, "link-local"},
	{netip.MustParsePrefix("ff00::/8"), never, "multicast"},
	{netip.MustParsePrefix("2001:db8::/32"), never, "documentation"},
	{netip.MustParsePrefix("3fff::/20"), never, "documentation"},
	{netip.MustParsePrefix("2001::/32"), never, "tunnel"},   // Teredo: holds an IPv4 address
	{netip.MustParsePrefix("2002::/16"), never, "tunnel"},   // 6to4: holds an IPv4 address
	{netip.MustParsePrefix("2001::/23"), never, "reserved"}, // IETF protocols, ORCHID, benchmarks
	{netip.MustParsePrefix("2000::/3"), public, "public"},   // all of IPv6 that IANA gave out
	{netip.MustParsePrefix("::/0"), never, "reserved"},      // among them IPv4-compatible, local NAT64, site-local
}

// nat64 is the well-known prefix for IPv4 addresses in a network without IPv4 (RFC 6052). A network with its own
// prefix must filter it: the prefix looks public.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// classify returns the kind of an address and the name of the kind.
func classify(addr netip.Addr) (kind, string) {
	addr = addr.Unmap().WithZone("") // an IPv4-mapped address is connected to over IPv4
	if nat64.Contains(addr) {
		bytes := addr.As16()
		kind, name := classify(netip.AddrFrom4([4]byte(bytes[12:])))
		if kind != public {
			kind = never // RFC 6052 section 3.1
		}
		return kind, name
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.kind, s.name
		}
	}
	return never, "invalid"
}

// isOddAddress reports whether a URL's host is an IPv4 address in an unusual form, such as 2130706433, 0x7f.1 or
// 0177.0.0.1. Some resolvers and proxies accept these, and the guard could not check them. The last label of a
// name is never a decimal or hexadecimal number (WHATWG URL, "ends in a number").
func isOddAddress(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	_, err := strconv.ParseUint(strings.ToLower(last), 0, 64)
	digits := strings.Trim(last, "0123456789") == ""
	return (err == nil || digits && last != "") && !hostAddr(host).IsValid()
}

// hostAddr returns the address of a URL's host if it is known without a lookup; else an invalid one.
func hostAddr(host string) netip.Addr {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 section 6.3
		return netip.IPv6Loopback()
	}
	addr, _ := netip.ParseAddr(host)
	return addr
}
