package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Calls are what one user asked of the API server.
type Calls struct {
	// Used counts the calls by group, resource (and subresource) and verb: "/persistentvolumes create".
	Used map[string]int
	// Forbidden are those that RBAC did not allow, as the audit log has them.
	Forbidden []string
}

// Audit returns all calls of sharevol's service accounts, by user name.
func (c *ControlPlane) Audit() (map[string]*Calls, error) {
	log, err := os.ReadFile(c.auditLog())
	if os.IsNotExist(err) {
		return map[string]*Calls{}, nil // nobody has called yet
	}
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	users := map[string]*Calls{}
	log = log[:bytes.LastIndexByte(log, '\n')+1] // the last line may still be being written
	for line := range bytes.Lines(log) {
		var event struct {
			Verb           string
			User           struct{ Username string }
			ObjectRef      struct{ Resource, Subresource, APIGroup string }
			ResponseStatus struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("read the audit log: %w in %s", err, line)
		}
		calls := users[event.User.Username]
		if calls == nil {
			calls = &Calls{Used: map[string]int{}}
			users[event.User.Username] = calls
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		calls.Used[event.ObjectRef.APIGroup+"/"+resource+" "+event.Verb]++
		if event.ResponseStatus.Code == 403 {
			calls.Forbidden = append(calls.Forbidden, string(line))
		}
	}
	return users, nil
}
