package manifests

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// rules is a rule file of Prometheus.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			For         model.Duration    `json:"for"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

var templated = regexp.MustCompile(`\$labels\.(\w+)`)

func (e exported) alerts(t *testing.T, data []byte) (uses []use) {
	t.Helper()
	var file rules
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			must(t, rule.Alert != "" && !names[rule.Alert], "each alert has a name of its own: "+rule.Alert)
			names[rule.Alert] = true
			must(t, slices.Contains([]string{"critical", "warning", "info"}, rule.Labels["severity"]), rule.Alert+" has a severity")
			must(t, rule.Annotations["summary"] != "" && rule.Annotations["description"] != "", rule.Alert+" says what to do")
			uses = append(uses, use{rule.Alert, rule.Expr})
			// A label that an annotation shows is one that the expression keeps.
			for _, annotation := range rule.Annotations {
				for _, match := range templated.FindAllStringSubmatch(annotation, -1) {
					kept := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(rule.Expr)
					must(t, kept != nil && slices.Contains(strings.Split(kept[1], ", "), match[1]), rule.Alert+" shows "+match[0]+", which its expression drops")
				}
			}
		}
	}
	return uses
}

var legend = regexp.MustCompile(`\{\{(\w+)\}\}`)

// dashboard returns the expressions of a Grafana dashboard.
func dashboard(t *testing.T, data []byte) (uses []use) {
	t.Helper()
	var board struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	ids, cells := map[int]bool{}, map[string]string{}
	for _, panel := range board.Panels {
		must(t, panel.ID > 0 && !ids[panel.ID] && panel.Title != "", fmt.Sprintf("panel %d %s has an id and a title", panel.ID, panel.Title))
		ids[panel.ID] = true
		must(t, panel.Type == "row" || len(panel.Targets) > 0, panel.Title+" shows something")
		for x := range panel.GridPos.W {
			for y := range panel.GridPos.H {
				cell := fmt.Sprint(panel.GridPos.X+x, "/", panel.GridPos.Y+y)
				must(t, cells[cell] == "" && panel.GridPos.X+x < 24, panel.Title+" is on top of "+cells[cell])
				cells[cell] = panel.Title
			}
		}
		for _, target := range panel.Targets {
			uses = append(uses, use{panel.Title, target.Expr})
			for _, match := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				must(t, strings.Contains(target.Expr, match[1]) || match[1] == "instance", panel.Title+": the legend shows "+match[0])
			}
		}
	}
	for _, variable := range board.Templating.List {
		if inner, ok := strings.CutPrefix(variable.Definition, "label_values("); ok {
			metric, label, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
			uses = append(uses, use{"variable " + variable.Name, "sum by (" + label + ") (" + metric + ")"})
		} else {
			must(t, variable.Type == "datasource", "variable "+variable.Name)
		}
	}
	must(t, board.UID != "" && len(uses) > 10, "a dashboard of some panels")
	return uses
}

// Dashboard and alerts use what the programs export, and nothing else.
func TestMonitoring(t *testing.T) {
	dir := filepath.Join(root(t), "manifests", "monitoring")
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	var files = map[string]string{}
	for _, object := range decode(t, data) {
		configMap := object.(*corev1.ConfigMap)
		maps.Copy(files, configMap.Data)
		_, isDashboard := configMap.Data["dashboard.json"]
		must(t, (configMap.Labels["grafana_dashboard"] == "1") == isDashboard, "Grafana's sidecar finds the dashboard by its label")
	}
	e := exported{}
	e.ofProvisioner(t)
	uses := slices.Concat(e.alerts(t, []byte(files["alerts.yaml"])), dashboard(t, []byte(files["dashboard.json"])))
	if _, err := os.Stat(filepath.Join(root(t), "internal", "node", "metrics.go")); err == nil {
		e.ofNode(t)
	} else {
		uses = slices.DeleteFunc(uses, func(u use) bool { return strings.Contains(u.expr, "sharevol_node_") })
		t.Log("this node plugin exports no metrics: what uses them is not looked at")
	}
	for _, u := range uses {
		e.check(t, u)
	}
	for name := range e {
		if strings.HasPrefix(name, "sharevol_") && !strings.HasSuffix(name, "_sum") && !slices.ContainsFunc(uses, func(u use) bool { return strings.Contains(u.expr, name) }) {
			t.Errorf("nothing shows %s", name)
		}
	}
}
