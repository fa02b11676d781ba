package manifests

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

// release is what is installed by the chart, and where.
type release struct {
	name, namespace string
	cluster         string // version
	values          string // YAML, as in a file for --values
}

// helmTemplate renders a release as helm template does: the cluster's version and the
// values are held against what the chart takes, then the templates are rendered.
func helmTemplate(t *testing.T, r release) ([]byte, error) {
	t.Helper()
	chart, err := loader.Load(filepath.Join(root(t), "manifests", "chart"))
	if err != nil {
		t.Fatal(err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	version, err := common.ParseKubeVersion(r.cluster)
	if err != nil {
		t.Fatal(err)
	}
	capabilities.KubeVersion = *version
	if !chartutil.IsCompatibleRange(chart.Metadata.KubeVersion, version.String()) {
		return nil, fmt.Errorf("the chart is for Kubernetes %s, not %s", chart.Metadata.KubeVersion, version)
	}
	values, err := util.ToRenderValues(chart, parseValues(t, r.values),
		common.ReleaseOptions{Name: r.name, Namespace: r.namespace, Revision: 1, IsInstall: true}, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{}.RenderWithContext(t.Context(), chart, values)
	if err != nil {
		return nil, err
	}
	notes := files["sharevol/templates/NOTES.txt"]
	must(t, strings.Contains(notes, r.namespace) && !strings.Contains(notes, "<no value>"), notes)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			text.WriteString("---\n" + files[name] + "\n")
		}
	}
	return []byte(text.String()), nil
}

func parseValues(t *testing.T, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return values
}

// helmLint runs Helm's linter, and returns what it has to say but for advice.
func helmLint(t *testing.T, r release) []string {
	t.Helper()
	version, err := common.ParseKubeVersion(r.cluster)
	if err != nil {
		t.Fatal(err)
	}
	result := lint.RunAll(filepath.Join(root(t), "manifests", "chart"), parseValues(t, r.values), r.namespace, lint.WithKubeVersion(version))
	var faults []string
	for _, message := range result.Messages {
		if message.Severity > support.InfoSev {
			faults = append(faults, message.Error())
		}
	}
	return faults
}
