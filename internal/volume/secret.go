package volume

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The parameters that name a secret are one of these with a suffix.
const (
	paramProvisioner  = sidecarPrefix + "provisioner-secret"
	paramNodePublish  = sidecarPrefix + "node-publish-secret"
	suffixSecretName  = "-name"
	suffixSecretSpace = "-namespace"
)

// SecretRef names a secret.
type SecretRef struct{ Namespace, Name string }

// SecretTemplate names a secret for each claim.
type SecretTemplate struct{ namespace, name Template }

// secret reads the two parameters that name a secret. Its name may use labels and
// annotations only with free: the author of a claim chooses those, and the
// provisioner may read secrets that the claim's author may not.
func (r *reader) secret(prefix string, free bool) *SecretTemplate {
	nameKey, spaceKey := prefix+suffixSecretName, prefix+suffixSecretSpace
	name, space := r.value(nameKey), r.value(spaceKey)
	faults := len(r.errs)
	switch {
	case name == "" && space == "":
		return nil
	case name == "":
		r.errs = append(r.errs, field.Required(r.path.Key(nameKey), "goes with "+spaceKey))
	case space == "":
		r.errs = append(r.errs, field.Required(r.path.Key(spaceKey), "goes with "+nameKey))
	}
	s := SecretTemplate{name: r.secretName(nameKey, name, free), namespace: r.secretNamespace(spaceKey, space)}
	if len(r.errs) > faults {
		return nil
	}
	return &s
}

func (r *reader) secretName(key, value string, free bool) Template {
	t, errs := parseTemplate(key, value, csiNames|sidecarNames)
	if value == "" {
		return t
	}
	for _, p := range t.parts {
		if p.variable.free() && !free {
			errs = append(errs, fmt.Errorf("%s must not choose the provisioner's secret: who writes a claim could choose another's", visible(p.text)))
		}
	}
	if err := checkSecretName(t.sample()); err != nil {
		errs = append(errs, err)
	}
	for _, err := range errs {
		r.invalid(key, err.Error())
	}
	return t
}

// secretNamespace reads a secret's namespace: a literal, or the claim's own. With
// more, a claim could name the secrets of any namespace.
func (r *reader) secretNamespace(key, value string) Template {
	t, _ := parseTemplate(key, value, csiNames|sidecarNames)
	switch {
	case value == "", len(t.parts) == 1 && t.parts[0].variable == claimNamespace:
	case len(t.parts) > 1 || t.parts[0].variable != none:
		r.invalid(key, "must be a namespace or ${pvc.metadata.namespace}")
	default:
		if err := checkNamespace(value); err != nil {
			r.invalid(key, err.Error())
		}
	}
	return t
}

// render returns nil for a class without such a secret. It hands report the faults
// of each of the two parameters.
func (s *SecretTemplate) render(claim Claim, report func(Template, []error)) *SecretRef {
	if s == nil {
		return nil
	}
	one := func(t Template, check func(string) error) string {
		values, faults := t.values(claim)
		value := strings.Join(values, "")
		if len(faults) == 0 {
			if err := check(value); err != nil {
				faults = append(faults, fmt.Errorf("renders %q, which %w", value, err))
			}
		}
		report(t, faults)
		return value
	}
	return &SecretRef{Namespace: one(s.namespace, checkNamespace), Name: one(s.name, checkSecretName)}
}

// The forms of DNS names that Kubernetes gives namespaces and secrets (RFC 1123). Its
// own functions for them would link its API validation into the node program.
var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

const (
	maxLabel     = 63
	maxSubdomain = 253
)

func checkNamespace(name string) error {
	if len(name) > maxLabel || !dnsLabel.MatchString(name) {
		return errors.New("must be a namespace's name: at most 63 lower case letters, digits and hyphens, beginning and ending with a letter or digit")
	}
	return nil
}

func checkSecretName(name string) error {
	if len(name) > maxSubdomain || !dnsSubdomain.MatchString(name) {
		return errors.New("must be a secret's name: at most 253 lower case letters, digits, hyphens and dots, beginning and ending with a letter or digit, and so each part between dots")
	}
	return nil
}
