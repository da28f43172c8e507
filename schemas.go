package mcpoauth

import "github.com/hashicorp/vault/sdk/framework"

func textSchema(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: description}
}

func textsSchema(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeStringSlice, Description: description}
}

func choiceSchema[S ~string](description string, values []S) *framework.FieldSchema {
	schema := textSchema(description)
	for _, value := range values {
		schema.AllowedValues = append(schema.AllowedValues, string(value))
	}
	return schema
}

func boolSchema(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeBool, Description: description}
}

// timeSchema describes a field that holds a time in RFC 3339 format, in UTC.
func timeSchema(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeTime, Description: description + " (RFC 3339, UTC)."}
}

// pathSchema describes a field that is part of the path.
func pathSchema(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Required: true, Description: description}
}

func serverField() *framework.FieldSchema {
	return pathSchema("The operator's short name for the MCP server.")
}

func roleField() *framework.FieldSchema { return pathSchema("Name of the role.") }

func verifyField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeBool,
		Default:     true,
		Description: "Obtain a token with the new settings first, and store nothing if that fails; false stores without contacting any server. verify itself is not stored. Default: true.",
	}
}

// operationPrefix is the prefix of operation ids in the OpenAPI document.
const operationPrefix = "mcp-oauth"

// display names an operation for the OpenAPI document and generated clients.
func display(suffix string) *framework.DisplayAttributes {
	return &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix}
}

// displayVerb is display with a verb that replaces the default one.
func displayVerb(verb, suffix string) *framework.DisplayAttributes {
	attrs := display(suffix)
	attrs.OperationVerb = verb
	return attrs
}
