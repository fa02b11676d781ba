package volume

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestSecrets(t *testing.T) {
	cases := map[string]struct {
		parameters             []string
		provisioner, published *SecretRef
	}{
		"none":        {nil, nil, nil},
		"literal":     {[]string{paramProvisioner + "-name", "nfs.options", paramProvisioner + "-namespace", "storage"}, &SecretRef{"storage", "nfs.options"}, nil},
		"letter case": {[]string{"csi.storage.k8s.io/Node-Publish-Secret-Name", "a", "CSI.STORAGE.K8S.IO/node-publish-secret-namespace", "b"}, nil, &SecretRef{"b", "a"}},
		"variables": {[]string{
			paramProvisioner + "-name", "${pvc.metadata.namespace}-${pvc.metadata.name}-${pv.metadata.name}", paramProvisioner + "-namespace", "${pvc.metadata.namespace}",
			paramNodePublish + "-name", "${pvc.metadata.labels['app']}-${pvc.metadata.labels['example.com/tier']}", paramNodePublish + "-namespace", "storage"},
			&SecretRef{"team", "team-notes-pvc-1"}, &SecretRef{"storage", "wiki-gold"}},
		"csi-provisioner's": {[]string{
			paramProvisioner + "-name", "${pvc.namespace}-${pvc.name}-${pv.name}", paramProvisioner + "-namespace", "${pvc.namespace}",
			paramNodePublish + "-name", "x${pvc.annotations['empty']}", paramNodePublish + "-namespace", "storage"},
			&SecretRef{"team", "team-notes-pvc-1"}, &SecretRef{"storage", "x"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			class, faults := class(c.parameters...)
			got, errs := class.Render(claim)
			if len(faults) > 0 || len(errs) > 0 || !equal(got.ProvisionerSecret, c.provisioner) || !equal(got.NodePublishSecret, c.published) {
				t.Errorf("%v, %v; %q, %v", got.ProvisionerSecret, got.NodePublishSecret, faults, errs)
			}
		})
	}
}

func equal(a, b *SecretRef) bool { return a == b || a != nil && b != nil && *a == *b }

func TestSecretsRefused(t *testing.T) {
	const space = "must be a namespace or ${pvc.metadata.namespace}"
	const choose = " must not choose the provisioner's secret: who writes a claim could choose another's"
	cases := map[string]struct {
		prefix, name, namespace string
		want                    []string // what each fault says of -name and -namespace
	}{
		"half":                  {paramProvisioner, "x", "", []string{"-namespace]: Required value: goes with csi.storage.k8s.io/provisioner-secret-name"}},
		"other half":            {paramNodePublish, "", "x", []string{"-name]: Required value: goes with csi.storage.k8s.io/node-publish-secret-namespace"}},
		"label":                 {paramProvisioner, "${pvc.metadata.labels['a']}", "x", []string{"-name]: ${pvc.metadata.labels['a']}" + choose}},
		"annotation":            {paramProvisioner, "${pvc.metadata.annotations['a']}", "x", []string{"-name]: ${pvc.metadata.annotations['a']}" + choose}},
		"annotation, short":     {paramProvisioner, "${pvc.annotations['a']}", "x", []string{"-name]: ${pvc.annotations['a']}" + choose}},
		"two labels":            {paramProvisioner, "${pvc.metadata.labels['a']}${pvc.metadata.labels['b']}", "x", []string{"-name]: ${pvc.metadata.labels['a']}" + choose, "-name]: ${pvc.metadata.labels['b']}" + choose}},
		"unknown":               {paramNodePublish, "${.PVC.name}", "x", []string{"-name]: ${.PVC.name} is not a variable, must be one of " + (csiNames | sidecarNames).allowed()}},
		"not closed":            {paramNodePublish, "${pvc.name", "x", []string{"-name]: ${pvc.name is not closed with }"}},
		"name":                  {paramNodePublish, "../x", "x", []string{"-name]: must be a secret's name: at most 253"}},
		"name's end":            {paramNodePublish, "${pvc.name}-", "x", []string{"-name]: must be a secret's name: at most 253"}},
		"name's case":           {paramNodePublish, "NFS-${pvc.name}", "x", []string{"-name]: must be a secret's name: at most 253"}},
		"namespace":             {paramNodePublish, "x", "a.b", []string{"-namespace]: must be a namespace's name: at most 63"}},
		"namespace, mixed":      {paramNodePublish, "x", "x-${pvc.metadata.namespace}", []string{"-namespace]: " + space}},
		"namespace, longer":     {paramNodePublish, "x", "${pvc.namespace}-x", []string{"-namespace]: " + space}},
		"namespace from label":  {paramNodePublish, "x", "${pvc.metadata.labels['a']}", []string{"-namespace]: " + space}},
		"namespace from name":   {paramProvisioner, "x", "${pvc.metadata.name}", []string{"-namespace]: " + space}},
		"namespace from volume": {paramProvisioner, "x", "${pv.name}", []string{"-namespace]: " + space}},
		"namespace not closed":  {paramProvisioner, "x", "${pvc.namespace", []string{"-namespace]: " + space}},
		"both":                  {paramProvisioner, "X", "X", []string{"-name]: must be a secret's name", "-namespace]: must be a namespace's name"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			parameters := map[string]string{"-name": c.name, "-namespace": c.namespace}
			class, faults := class(c.prefix+"-name", c.name, c.prefix+"-namespace", c.namespace)
			ok := len(faults) == len(c.want) && class.ProvisionerSecret == nil && class.NodePublishSecret == nil
			for i := 0; ok && i < len(faults); i++ {
				suffix, says, _ := strings.Cut(c.want[i], "]: ")
				prefix := "parameters[" + c.prefix + suffix + "]: "
				if !strings.HasPrefix(says, "Required") {
					prefix += "Invalid value: " + strconv.Quote(parameters[suffix]) + ": "
				}
				ok = strings.HasPrefix(faults[i], prefix+says)
			}
			if !ok {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(faults, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// What a claim makes of a secret's name is named by the parameter it is from.
func TestSecretsOfHostileClaims(t *testing.T) {
	const begin = "parameters[csi.storage.k8s.io/node-publish-secret-name]: Invalid value: "
	const rule = ", which must be a secret's name: at most 253 lower case letters, digits, hyphens and dots, beginning and ending with a letter or digit, and so each part between dots"
	for key, want := range map[string]string{
		"up":    `renders ".."` + rule,
		"slash": `renders "a/b"` + rule,
		"lines": `renders "a\nb"` + rule,
		"zh":    `renders "` + "\u4e2d\u6587" + `"` + rule,
		"empty": `renders ""` + rule,
		"gone":  "the claim has no ${pvc.metadata.labels['gone']}",
	} {
		template := "${pvc.metadata.labels['" + key + "']}"
		c, faults := class(paramNodePublish+"-name", template, paramNodePublish+"-namespace", "storage")
		_, errs := c.Render(claim)
		if len(faults) > 0 || !slices.Equal(lines(errs), []string{begin + strconv.Quote(template) + ": " + want}) {
			t.Errorf("label %s: %q, %q", key, faults, lines(errs))
		}
	}
	c, _ := class("subDir", "${pvc.metadata.labels['gone']}", paramProvisioner+"-name", "x", paramProvisioner+"-namespace", "${pvc.namespace}")
	_, errs := c.Render(Claim{Namespace: "a.b"})
	if len(errs) != 2 || errs[0].Field != "parameters[csi.storage.k8s.io/provisioner-secret-namespace]" || errs[1].Field != "parameters[subDir]" {
		t.Errorf("faults of several parameters: %v", errs)
	}
}

// The forms of names are Kubernetes' own.
func TestNamesAreKubernetes(t *testing.T) {
	for _, name := range []string{
		"a", "0", "a-b", "a.b", "a--b", "-a", "a-", ".a", "a.", "a..b", "a.-b", "a-.b", "A", "a_b", "a b", "a\n", "\na", "", "..", "a/b", "\u4e2d", "a\xff",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 253), strings.Repeat("a", 254), strings.Repeat("a.", 126) + "a",
	} {
		if got, want := checkNamespace(name) == nil, len(validation.IsDNS1123Label(name)) == 0; got != want {
			t.Errorf("namespace %q: %v, Kubernetes says %v", name, got, want)
		}
		if got, want := checkSecretName(name) == nil, len(validation.IsDNS1123Subdomain(name)) == 0; got != want {
			t.Errorf("secret %q: %v, Kubernetes says %v", name, got, want)
		}
	}
}
