package acceptance

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

// Deleting a config with 3,000 roles and tokens delays brokers of 700 other servers, all with cold reads, by at most
// a second. The names are gone when the delete returns, and the storage entries soon after. A new config of the same
// name keeps its own entries.
//
// The test is not parallel: the load of other tests would change its figures.
func TestDeletingALargeConfigStallsNoOther(t *testing.T) {
	const bound = time.Second
	roles := 3000
	if testing.Short() {
		roles = 500
	}
	b := bed.New(t, bed.Options{LogLevel: "info"})
	begun := time.Now()
	r := bed.Must(trouble.BigDelete{Roles: roles, Others: 700}.Run(t.Context(), newStage(t, b, "big-delete")))(t)
	t.Logf("delete of %d roles: %s, %d entries left then, created again %s later, clean %s later; slowest of %d cold reads %s, of %d warm ones %s, of %d of status/ %s; all took %s",
		r.Roles, round(r.Delete.Took), r.Left, round(r.Created), round(r.Clean), len(r.Cold), round(trouble.Slowest(r.Cold)),
		len(r.Warm), round(trouble.Slowest(r.Warm)), len(r.Status), round(trouble.Slowest(r.Status)), round(time.Since(begun)))
	for what, results := range map[string][]trouble.Result{"cold": r.Cold, "warm": r.Warm, "status/": r.Status} {
		if slowest := trouble.Slowest(results); slowest > bound {
			n := 0
			for _, result := range results {
				if result.Took > bound {
					n++
				}
			}
			t.Errorf("%d of %d %s reads of other servers took more than %s, the slowest %s", n, len(results), what, bound, round(slowest))
		}
		wantAll(t, what+" reads of other servers", results, http.StatusOK)
	}
	if r.Delete.Took > writeBound {
		t.Errorf("the delete took %s, want at most %s: sealing Vault waits for it", round(r.Delete.Took), writeBound)
	}
	if r.Create.Status >= http.StatusInternalServerError || r.Create.Took > writeBound {
		t.Errorf("creating the config again: %s, want it done, or refused with a reason", r.Create)
	}
	for what, results := range map[string][]trouble.Result{"returned": r.Gone, "been under way for a second": r.Early} {
		wantAll(t, "deleted names when the delete had "+what, results, http.StatusNotFound)
	}
	for _, list := range r.Listed {
		names, _ := list.Data["keys"].([]any)
		i := slices.IndexFunc(names, func(name any) bool {
			text, _ := name.(string)
			return len(text) >= 3 && text[:3] == "big" || len(text) >= 4 && text[:4] == "role"
		})
		if i >= 0 {
			t.Errorf("the list of %s shows %v, which was deleted", list.Path, names[i])
		}
	}
	wantAll(t, "a role of a new config of the name", r.Recreated, http.StatusOK)
	if r.Still != 0 {
		t.Errorf("%d entries of the old config remain", r.Still)
	}
}
