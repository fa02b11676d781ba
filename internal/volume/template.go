package volume

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Claim is what of a claim a template can name.
type Claim struct {
	Namespace, Name     string
	Volume              string // the name of the PersistentVolume
	Labels, Annotations map[string]string
}

// Template is text with variables, which a claim gives values. The zero value is empty.
type Template struct {
	parameter string // whose value it is
	parts     []part
	slashes   bool // a label's or annotation's value may add path levels
}

// part is some text, or the place of a variable's value.
type part struct {
	text     string // as it is written
	variable variable
	key      string // of the label or annotation
}

type variable int

const (
	none    variable = iota // the part is text
	unknown                 // no variable of ours: the class has a fault
	claimName
	claimNamespace
	volumeName
	label
	annotation
)

// free is true for values that the claim's author chooses freely.
func (v variable) free() bool { return v == label || v == annotation }

// dialect says which spellings of variables a template takes.
type dialect int

const (
	csiNames       dialect = 1 << iota // ${pvc.metadata.name}, those of csi-driver-nfs
	nfsSubdirNames                     // ${.PVC.name}, those of nfs-subdir-external-provisioner
	sidecarNames                       // ${pvc.name}, those of csi-provisioner's secrets
)

// allowed lists the variables for messages.
func (d dialect) allowed() string {
	list := "${pvc.metadata.name}, ${pvc.metadata.namespace}, ${pvc.metadata.labels['KEY']}, ${pvc.metadata.annotations['KEY']}, ${pv.metadata.name}"
	if d&nfsSubdirNames != 0 {
		list += ", ${.PVC.name}, ${.PVC.namespace}, ${.PVC.labels.KEY}, ${.PVC.annotations.KEY}"
	}
	if d&sidecarNames != 0 {
		list += ", ${pvc.name}, ${pvc.namespace}, ${pvc.annotations['KEY']}, ${pv.name}"
	}
	return list
}

// plain are the variables that every claim has, by spelling.
var plain = map[string]struct {
	dialect  dialect
	variable variable
}{
	"pvc.metadata.name":      {csiNames, claimName},
	"pvc.metadata.namespace": {csiNames, claimNamespace},
	"pv.metadata.name":       {csiNames, volumeName},
	".PVC.name":              {nfsSubdirNames, claimName},
	".PVC.namespace":         {nfsSubdirNames, claimNamespace},
	"pvc.name":               {sidecarNames, claimName},
	"pvc.namespace":          {sidecarNames, claimNamespace},
	"pv.name":                {sidecarNames, volumeName},
}

// keyed are the spellings of the variables that a claim may have or not. In
// nfs-subdir-external-provisioner's, all that follows is the key.
var keyed = []struct {
	dialect dialect
	pattern *regexp.Regexp
}{
	{csiNames, regexp.MustCompile(`^pvc\.metadata\.(labels|annotations)\['([^'\[\]]+)'\]$`)},
	{nfsSubdirNames, regexp.MustCompile(`^\.PVC\.(labels|annotations)\.(.+)$`)},
	{sidecarNames, regexp.MustCompile(`^pvc\.(annotations)\['([^'\[\]]+)'\]$`)},
}

// parseTemplate reads the template that is the value of parameter. Its errors name
// every fault. What a variable's value holds is never read as a template again.
func parseTemplate(parameter, value string, d dialect) (Template, []error) {
	t := Template{parameter: parameter}
	var errs []error
	for value != "" {
		before, rest, found := strings.Cut(value, "${")
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			errs = append(errs, fmt.Errorf("%s is not closed with }", visible("${"+rest)))
			t.parts = append(t.parts, part{text: "${" + rest, variable: unknown})
			break
		}
		p := parseVariable(name, d)
		if p.variable == unknown {
			errs = append(errs, fmt.Errorf("%s is not a variable, must be one of %s", visible(p.text), d.allowed()))
		}
		t.parts = append(t.parts, p)
		value = after
	}
	return t, errs
}

func parseVariable(name string, d dialect) part {
	p := part{text: "${" + name + "}", variable: unknown}
	if v, ok := plain[name]; ok && v.dialect&d != 0 {
		p.variable = v.variable
		return p
	}
	for _, k := range keyed {
		match := k.pattern.FindStringSubmatch(name)
		if match == nil || k.dialect&d == 0 {
			continue
		}
		p.variable, p.key = label, match[2]
		if match[1] == "annotations" {
			p.variable = annotation
		}
	}
	return p
}

// String returns the template as it was written.
func (t Template) String() string {
	var text strings.Builder
	for _, p := range t.parts {
		text.WriteString(p.text)
	}
	return text.String()
}

// same is true if both templates render alike for every claim, however they spell
// their variables.
func (t Template) same(other Template) bool {
	return slices.EqualFunc(t.parts, other.parts, func(a, b part) bool {
		if a.variable == none || a.variable == unknown {
			return a == b
		}
		return a.variable == b.variable && a.key == b.key
	})
}

// sample returns the template with an x for each variable. A rule about characters,
// components or ends that it breaks is broken whatever the claim says.
func (t Template) sample() string {
	var text strings.Builder
	for _, p := range t.parts {
		if p.variable == none {
			text.WriteString(p.text)
		} else {
			text.WriteByte('x')
		}
	}
	return text.String()
}
