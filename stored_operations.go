package mcpoauth

import (
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// storedOperations describes the operations on a config or a role.
type storedOperations struct {
	save          saver
	saveSummary   string
	read          handler
	readSummary   string
	readDetails   string
	response      map[string]*framework.FieldSchema // fields of a read
	delete        handler
	deleteSummary string
}

func (b *backend) operations(o storedOperations) map[logical.Operation]framework.OperationHandler {
	save := func(exists bool) *framework.PathOperation { // for OpenAPI a create and an update are one
		return forwarded(b.serveSave(o.save, exists), o.saveSummary,
			"An update changes only the fields that it gives. A write first obtains a token with the new settings, and stores nothing if that fails; verify=false stores without contacting any server.",
			stored())
	}
	return map[logical.Operation]framework.OperationHandler{
		logical.CreateOperation: save(false),
		logical.UpdateOperation: save(true),
		logical.ReadOperation: &framework.PathOperation{
			Callback:    b.serveOperator(o.read),
			Summary:     o.readSummary,
			Description: o.readDetails,
			Responses:   responses(http.StatusOK, "The fields, without secrets", o.response),
		},
		logical.DeleteOperation: forwarded(b.serveWrite(o.delete), o.deleteSummary,
			"Tokens that brokers have are not revoked: they end when they expire.",
			responses(http.StatusNoContent, "Deleted", nil)),
	}
}

// forwarded returns a write of storage shared by clusters. Vault forwards it to the primary cluster's active node.
func forwarded(callback framework.OperationFunc, summary, description string, responses map[int][]framework.Response) *framework.PathOperation {
	return &framework.PathOperation{
		Callback:                    callback,
		Summary:                     summary,
		Description:                 description,
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
		Responses:                   responses,
	}
}

// stored describes the responses of a write.
func stored() map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusNoContent: {{Description: "Stored"}},
		http.StatusOK:        {{Description: "Stored, with warnings"}},
	}
}

// listOperation returns the operations of a path that only lists names.
func (b *backend) listOperation(list handler, summary, description, keys string) map[logical.Operation]framework.OperationHandler {
	return map[logical.Operation]framework.OperationHandler{
		logical.ListOperation: &framework.PathOperation{
			Callback:    b.serveOperator(list),
			Summary:     summary,
			Description: description,
			Responses: responses(http.StatusOK, "The names", map[string]*framework.FieldSchema{
				"keys": {Type: framework.TypeStringSlice, Description: keys},
			}),
		},
	}
}
