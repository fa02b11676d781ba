package volume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Rendered is what a class comes to for one claim.
type Rendered struct {
	SubDir SubDir
	// ProvisionerSecret and NodePublishSecret are nil where the class names none.
	ProvisionerSecret, NodePublishSecret *SecretRef
}

// Render gives the class's templates the claim's values. Every fault of the claim is
// in the list, sorted by parameter, and with any the rest is empty. A class that has
// faults itself may be rendered to find the claim's, and for nothing else.
func (c Class) Render(claim Claim) (Rendered, field.ErrorList) {
	var r Rendered
	var errs field.ErrorList
	report := func(t Template, faults []error) {
		for _, err := range faults {
			errs = append(errs, field.Invalid(field.NewPath("parameters").Key(t.parameter), t.String(), err.Error()))
		}
	}
	dir, faults := c.SubDir.path(claim)
	report(c.SubDir, faults)
	r.SubDir = dir
	r.ProvisionerSecret = c.ProvisionerSecret.render(claim, report)
	r.NodePublishSecret = c.NodePublishSecret.render(claim, report)
	if len(errs) > 0 {
		sortFaults(errs)
		return Rendered{}, errs
	}
	return r, nil
}

// sortFaults sorts by parameter; the faults of one keep their order.
func sortFaults(errs field.ErrorList) {
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return cmp.Compare(a.Field, b.Field) })
}

// values returns what the claim makes of each part. Its errors name every variable
// that the claim does not have, whose value is an x.
func (t Template) values(claim Claim) ([]string, []error) {
	values := make([]string, len(t.parts))
	var errs []error
	for i, p := range t.parts {
		value, ok := p.value(claim)
		if !ok {
			errs = append(errs, fmt.Errorf("the claim has no %s", visible(p.text)))
			value = "x"
		}
		values[i] = value
	}
	return values, errs
}

// value returns false if the claim does not have it.
func (p part) value(claim Claim) (string, bool) {
	switch p.variable {
	case none:
		return p.text, true
	case claimName:
		return claim.Name, true
	case claimNamespace:
		return claim.Namespace, true
	case volumeName:
		return claim.Volume, true
	case label:
		value, ok := claim.Labels[p.key]
		return value, ok
	case annotation:
		value, ok := claim.Annotations[p.key]
		return value, ok
	}
	return "x", true // the class's fault, not the claim's
}

// path renders the path of a volume directory. Its errors name every fault: what is
// wrong with one value first, with an x in its place for the rest.
func (t Template) path(claim Claim) (SubDir, []error) {
	values, errs := t.values(claim)
	for i, p := range t.parts {
		why := ""
		switch {
		case p.variable == none || !strings.Contains(values[i], "/") || p.variable.free() && t.slashes:
			continue
		case p.variable.free():
			why = " where the class does not set " + paramAllowSlashes
		}
		errs = append(errs, fmt.Errorf("the value %q of %s must not contain a slash%s", values[i], visible(p.text), why))
		values[i] = "x"
	}
	for _, i := range t.holes(values) {
		errs = append(errs, fmt.Errorf("the value of %s is empty, which leaves an empty path component", visible(t.parts[i].text)))
		values[i] = "x"
	}
	text := strings.Join(values, "")
	dir, err := ParseSubDir(text)
	if err != nil {
		errs = append(errs, fmt.Errorf("the path %q %w", text, err))
	}
	return dir, errs
}

// holes returns the indices of the empty values that are all there is of a path component.
func (t Template) holes(values []string) []int {
	var holes []int
	for i, p := range t.parts {
		if p.variable == none || values[i] != "" {
			continue
		}
		before, after := strings.Join(values[:i], ""), strings.Join(values[i+1:], "")
		if (before == "" || strings.HasSuffix(before, "/")) && (after == "" || strings.HasPrefix(after, "/")) {
			holes = append(holes, i)
		}
	}
	return holes
}
