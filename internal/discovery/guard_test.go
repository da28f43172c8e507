package discovery

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		kind  kind
		addrs string
	}{
		{public, "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2a00::1 2001:200::1 2003::1"},
		{public, "::ffff:1.1.1.1 64:ff9b::101:101"},
		{loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1"},
		{private, "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 100.64.0.1 100.127.255.255 fc00::1 fdff::1 ::ffff:10.0.0.1 ::ffff:192.168.1.1"},
		{never, "0.0.0.0 0.1.2.3 169.254.0.1 169.254.169.254 169.254.170.2 192.0.0.1 192.0.0.192 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 198.18.0.1 198.19.255.255 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255"},
		{never, "100.100.100.200 168.63.129.16 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 fd00:c1::a9fe:a9fe fd00:100::100:200 fd00:a9fe:a9fe::1"},
		{never, ":: ::2 fe80::1 fe80::a9fe:a9fe fe80::1%eth0 febf::1 fec0::1 ff02::1 ff0e::1 100::1 2001:db8::1 3fff::1 2001:10::1 2001:2::1 5f00::1 4000::1"},
		// IPv4 inside IPv6: mapped, compatible, translated, NAT64, local NAT64, 6to4, Teredo.
		{never, "::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:255.255.255.255 ::169.254.169.254 ::127.0.0.1 ::ffff:0:127.0.0.1"},
		{never, "64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::a9fe:a9fe 64:ff9b:1::101:101"},
		{never, "2002:7f00:1::1 2002:a9fe:a9fe::1 2002:101:101::1 2001:0:4136:e378:8000:63bf:3fff:fdd2"},
	} {
		for _, s := range strings.Fields(c.addrs) {
			addr := netip.MustParseAddr(s)
			for _, p := range []Policy{{}, {Loopback: true}, {Private: true}, {Loopback: true, Private: true}} {
				want := c.kind == public || c.kind == loopback && p.Loopback || c.kind == private && p.Private
				err := p.Control("tcp", netip.AddrPortFrom(addr, 443).String(), nil)
				if got := err == nil; got != want {
					t.Errorf("%s under %+v: %v", s, p, err)
				}
				if refused, ok := errors.AsType[*AddressError](err); err != nil && (!ok || refused.Never != (c.kind == never)) {
					t.Errorf("%s under %+v: %#v", s, p, err)
				}
			}
		}
	}
}

func TestAddressThatIsNoneIsRefused(t *testing.T) {
	everything := Policy{Loopback: true, Private: true}
	for _, s := range []string{"", "1.1.1.1", "localhost:443", "/run/socket", "[::1]"} {
		if everything.Control("tcp", s, nil) == nil {
			t.Errorf("%q is permitted", s)
		}
	}
	if everything.Check(netip.Addr{}) == nil {
		t.Error("the zero address is permitted")
	}
}

func TestRefusalNamesTheFieldThatPermits(t *testing.T) {
	for addr, want := range map[string]string{
		"::ffff:10.0.0.1": "10.0.0.1 (private) is not called without allow_private_addresses=true",
		"127.0.0.1":       "127.0.0.1 (loopback) is not called without allow_private_addresses=true",
		"169.254.169.254": "169.254.169.254 (link-local) is never called",
	} {
		if err := (Policy{}).Check(netip.MustParseAddr(addr)); err.Error() != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestPolicyFollowsTheAddressOfAnAnswer(t *testing.T) {
	for _, c := range []struct {
		from         string
		allowPrivate bool
		want         Policy
	}{
		{"1.1.1.1", false, Policy{}},
		{"127.0.0.1", false, Policy{Loopback: true}},
		{"::ffff:10.1.1.1", false, Policy{Private: true}},
		{"fd00::1", false, Policy{Private: true}},
		{"169.254.169.254", false, Policy{}},
		{"1.1.1.1", true, Policy{Loopback: true, Private: true}},
	} {
		if got := policyFor(netip.MustParseAddr(c.from)).Or(c.allowPrivate); got != c.want {
			t.Errorf("%s: %+v", c.from, got)
		}
	}
	if got := policyFor(netip.Addr{}); got != (Policy{}) {
		t.Errorf("the zero address: %+v", got)
	}
	for host, want := range map[string]string{
		"localhost": "::1", "LOCALHOST.": "::1", "a.localhost": "::1", "10.0.0.1": "10.0.0.1", "::1": "::1",
		"notlocalhost": "invalid IP", "2130706433": "invalid IP", "example.com": "invalid IP",
	} {
		if got := hostAddr(host).String(); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}
