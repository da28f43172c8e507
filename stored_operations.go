package mcpoauth

import (
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// storedOperations are the operations on what operators write, read and delete: a config or a role.
type storedOperations struct {
	save          saver
	saveSummary   string
	read          handler
	readSummary   string
	readDetails   string
	response      map[string]*framework.FieldSchema // of a read
	delete        handler
	deleteSummary string
}

func (b *backend) operations(o storedOperations) map[logical.Operation]framework.OperationHandler {
	save := func(exists bool) *framework.PathOperation { // for OpenAPI a create and an update are one
		return &framework.PathOperation{
			Callback:                    b.serveSave(o.save, exists),
			Summary:                     o.saveSummary,
			Description:                 "An update changes only the fields given. A token is obtained with the new settings first, and if that fails nothing is stored; verify=false stores without contacting any server.",
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
			Responses: map[int][]framework.Response{
				http.StatusNoContent: {{Description: "Stored"}},
				http.StatusOK:        {{Description: "Stored, with warnings"}},
			},
		}
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
		logical.DeleteOperation: &framework.PathOperation{
			Callback:                    b.serveWrite(o.delete),
			Summary:                     o.deleteSummary,
			Description:                 "Tokens that were handed out are not revoked: they end when they expire.",
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
			Responses:                   responses(http.StatusNoContent, "Deleted", nil),
		},
	}
}

// listOperation is the only operation of a path that lists names.
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
