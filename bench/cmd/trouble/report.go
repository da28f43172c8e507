package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

func (r *report) print() {
	fmt.Printf("What trouble costs. %s. Vault with raft storage and a file audit log, log level info.\n", r.environment)
	if r.hangs != nil {
		printHangs(r.hangs)
	}
	if r.crowds != nil {
		printCrowds(r.crowds)
		printRotations(r.rotations)
	}
	if r.outages != nil {
		printOutages(r.outages)
	}
	if r.shortLived != nil {
		printShortLived(r.shortLived)
	}
	if r.bigDelete != nil {
		printDelete(r.bigDelete)
	}
	if r.rewrite != nil {
		fmt.Printf("\nA write of a config with %s roles that makes all their tokens worthless took %s s; %s old tokens were read after it.\n",
			measure.Count(r.rewrite.Roles), inSeconds(r.rewrite.Wrote.Took), measure.Count(r.rewrite.Old))
	}
}

func printHangs(all []*trouble.HangReport) {
	fmt.Println("\nA token endpoint accepts and never answers, default settings; three nodes. Each reader reads a name of its own.")
	var rows [][]string
	for _, h := range all {
		readers, write, bound := measure.Count(h.Readers)+" of one client", "", 6*time.Second
		if h.Clients {
			readers = measure.Count(h.Readers) + " of as many clients"
		}
		if h.Write {
			write, bound = inSeconds(h.Wrote.Took)+", "+fmt.Sprint(h.Wrote.Status), 16*time.Second
		}
		rows = append(rows, []string{
			h.Event, readers, write, inSeconds(h.Took), inSeconds(h.KV), inSeconds(trouble.Slowest(h.Reads)), statuses(h.Reads),
			met(h.Took <= bound && h.KV <= bound && trouble.Other(h.Reads, 504) == nil),
		})
	}
	measure.Table(os.Stdout, []string{
		"event", "readers", "config write, s", "took, s", "slowest KV read, s", "slowest token read, s", "answers", "6 s, 16 s with a write",
	}, rows...)
}

func printCrowds(all []*trouble.CrowdReport) {
	fmt.Printf("\nA client with %s names, roles of two configs, meets a failure: all are read at once, and again and again.\n", measure.Count(all[0].Names))
	var rows [][]string
	for _, c := range all {
		served, behind, healing := "", "", ""
		if c.Served > 0 {
			served, behind, healing = inSeconds(c.Served), inSeconds(c.Behind), measure.Count(c.Healing)
		}
		rows = append(rows, []string{
			c.Name, measure.Count(c.AtOnce), measure.Count(c.Windows), inSeconds(c.Gap), served, behind, healing, statuses(c.Last),
			met(c.AtOnce <= 8),
		})
	}
	measure.Table(os.Stdout, []string{
		"failure", "requests at once", fmt.Sprintf("in the next %.0f s", all[0].Watched.Seconds()), "shortest window, s",
		"first served after the recovery, s", "all served after that, s", "requests for that", "answers then", "at most 8 at once",
	}, rows...)
}

func printRotations(all []rotation) {
	var rows [][]string
	for _, r := range all {
		rows = append(rows, []string{r.failure, measure.Count(r.Names), measure.Count(r.Asked), statuses(r.Reads), measure.Count(r.Refreshed), met(r.Asked <= 9+5 && r.Refreshed <= 2)})
	}
	fmt.Printf("\nThe secret of a client with held tokens is rotated; the write succeeds, what comes after it meets the failure for %.0f s.\n", watch.Seconds())
	measure.Table(os.Stdout, []string{"failure", "held tokens", "requests", "reads then", "requests for as many calls of refresh/", "1 of the write, 8, then 1 per window"}, rows...)
}

func printOutages(all []*trouble.OutageReport) {
	all = slices.DeleteFunc(all, func(o *trouble.OutageReport) bool { return o == nil }) // one that failed
	if len(all) == 0 {
		return
	}
	fmt.Printf("\nFrom a server's return to the first served read, with readers of %d names of one client all the time.\n", all[0].Names)
	slices.SortStableFunc(all, func(a, b *trouble.OutageReport) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Length, b.Length))
	})
	var rows [][]string
	for _, o := range all {
		rows = append(rows, []string{
			o.Name, inSeconds(o.Length), measure.Count(o.Down), inSeconds(o.Served), inSeconds(o.All), measure.Count(o.Back),
			statuses(o.Reads), met(o.Served <= 12*time.Second),
		})
	}
	measure.Table(os.Stdout, []string{
		"outage", "length, s", "requests in it", "first served after, s", "all served after, s", "requests for that", "reads without a token", "12 s",
	}, rows...)
}

func printShortLived(all []*trouble.ShortLivedReport) {
	fmt.Printf("\n%s names with tokens that are too short to refresh ahead, each read once, and then left alone for %.0f s.\n",
		measure.Count(all[0].Names), all[0].Calm.Seconds())
	var rows [][]string
	for _, l := range all {
		rows = append(rows, []string{
			inSeconds(l.Lifetime), measure.Count(l.Asked), measure.Count(l.Writes), measure.Count(l.CalmAsked), measure.Count(l.CalmWrites),
			measure.Count(l.IdleWrites), measure.Count(l.Stored), met(l.CalmAsked == 0 && l.Stored == 0),
		})
	}
	measure.Table(os.Stdout, []string{
		"lifetime, s", "requests for the reads", "storage writes", "requests when left alone", "storage writes", "Vault's own before", "stored", "0, 0",
	}, rows...)
}

func printDelete(d *trouble.BigDeleteReport) {
	fmt.Printf("\nA config with %s roles is deleted, each with a token, while brokers of %s other servers read for the first time.\n",
		measure.Count(d.Roles), measure.Count(d.Others))
	slow := 0
	for _, r := range d.Cold {
		if r.Took > time.Second {
			slow++
		}
	}
	measure.Table(os.Stdout, []string{
		"delete, s", "entries left then", "created again after, s", "clean after, s", "slowest cold read, s", "cold reads over 1 s", "slowest warm read, s",
		"deleted names then", "1 s, 404",
	}, []string{
		inSeconds(d.Delete.Took), measure.Count(d.Left), inSeconds(d.Created), inSeconds(d.Clean), inSeconds(trouble.Slowest(d.Cold)), measure.Count(slow),
		inSeconds(trouble.Slowest(d.Warm)), statuses(d.Gone), met(slow == 0 && trouble.Other(d.Gone, 404) == nil),
	})
}

func inSeconds(d time.Duration) string { return measure.Decimals(d.Seconds(), 2) }

// statuses are how many answers there were of each status.
func statuses(results []trouble.Result) string {
	counts := trouble.Statuses(results)
	var all []string
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d: %d", status, counts[status]))
	}
	return strings.Join(all, ", ")
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "NOT met"
}
