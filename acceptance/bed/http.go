package bed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HTTPClient ends a request after half a minute. Otherwise a hanging request would exceed the limit of Poll.
var HTTPClient = &http.Client{Timeout: 30 * time.Second}

// Call makes an HTTP request. It sends in as a form if it is url.Values, otherwise as JSON, and decodes the JSON
// answer into out. Either may be nil. A status other than 2xx is an error.
func Call(ctx context.Context, method, address string, header http.Header, in, out any) error {
	var body io.Reader = http.NoBody
	contentType := "application/json"
	switch in := in.(type) {
	case nil:
	case url.Values:
		body, contentType = strings.NewReader(in.Encode()), "application/x-www-form-urlencoded"
	default:
		content, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(content)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return err
	}
	maps.Copy(req.Header, header)
	if in != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := HTTPClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, content)
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(content, out)
}
