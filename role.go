package mcpoauth

import (
	"slices"
)

// role is a named override of a config, as it is stored. An empty field takes the config's value.
type role struct {
	// Incarnation is that of the role's config.
	Incarnation string `json:"incarnation"`
	// Revision is drawn at every write.
	Revision string `json:"revision"`

	tokenParams
}

// roleTable defines the fields of role/<server>/<role>.
var roleTable = slices.Concat(fieldTable[role]{
	{name: "server", schema: *serverField()},
	{name: "role", schema: *roleField()},
}, tokenParamFields(func(r *role) *tokenParams { return &r.tokenParams }, map[string]string{
	"scopes":       "the config's",
	"resource":     "the config's",
	"audience":     "the config's",
	"extra_params": "the config's",
}), fieldTable[role]{
	{name: "verify", schema: *verifyField()},
})

// clone returns a deep copy.
func (r *role) clone() *role {
	next := *r
	next.tokenParams = r.tokenParams.clone()
	return &next
}

func (r *role) same(o *role) bool {
	a, b := *r, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}
