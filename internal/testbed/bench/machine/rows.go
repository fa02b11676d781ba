package machine

import (
	"fmt"
	"slices"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

// What is to be reached.
const (
	reachCommands    = 1.1 // times the bare commands
	reachFaster      = 4   // times as fast as others remove
	reachNode        = 15  // MB resident
	reachNodeImage   = 45  // MB
	reachProvisioner = 20  // MB of the image besides the program
)

// rows makes the table out of the samples.
func (s samples) rows(areas []string) []report.Row {
	var rows []report.Row
	for _, area := range Areas {
		if slices.Contains(areas, area) {
			rows = append(rows, map[string]func() []report.Row{
				Publish: s.publishRows, Remove: s.removeRows, Footprint: s.footprintRows,
			}[area]()...)
		}
	}
	return rows
}

func (s samples) publishRows() []report.Row {
	var rows []report.Row
	for _, call := range []struct{ name, command string }{{"publish", "mount -t nfs"}, {"unpublish", "umount"}} {
		for _, how := range []struct{ name, what, note string }{
			{"first", "p50", "nothing else of the server is mounted"},
			{"further", "p50", "another volume of the server is mounted"},
			{"together", "all", fmt.Sprintf("%.0f at once, the commands in parallel", s.median("publish/volumes"))},
		} {
			name := call.name + "/" + how.name + "/"
			rows = append(rows, report.Row{
				Area: Publish, What: call.name + ", " + how.what, Unit: "ms", BaseName: call.command, Note: how.note,
				Ours: s.median(name + ours), Base: s.median(name + bare),
			}.AtMost(reachCommands))
		}
	}
	return rows
}

// removeRows have speeds, not times: more is better.
func (s samples) removeRows() []report.Row {
	files := s.median("rm/files")
	speed := func(way string) float64 {
		if took := s.median("rm/" + way); took > 0 {
			return files / took * 1000
		}
		return 0
	}
	var rows []report.Row
	for _, way := range []string{removeCommand, removeAll} {
		rows = append(rows, report.Row{
			Area: Remove, What: "big delete", Ours: speed(ours), Base: speed(way), Unit: "files/s", BaseName: way,
			Note: fmt.Sprintf("%.0f files, %s away; ours from the claim's deletion until the volume is gone", files, latency),
		}.AtLeast(reachFaster))
	}
	rows = append(rows, report.Row{
		Area: Remove, What: "big delete, of it the directory", Ours: speed(oursAlone), Base: speed(removeCommand), Unit: "files/s", BaseName: removeCommand,
		Note: "from the rename into the trash until it is gone",
	}.Only())
	for _, way := range []string{ours, removeCommand, removeAll} {
		for _, percent := range []int{50, 99} {
			rows = append(rows, report.Row{
				Area: Remove, What: fmt.Sprintf("another client's write, p%d", percent), Unit: "ms", BaseName: "before",
				Ours: s.quantile("rm/other/during/"+way, percent), Base: s.quantile("rm/other/before/"+way, percent), Note: "during " + way,
			}.Only())
		}
	}
	return rows
}

func (s samples) footprintRows() []report.Row {
	row := func(what, name string) report.Row {
		return report.Row{Area: Footprint, What: what, Ours: s.median("footprint/" + name), Unit: "MB"}
	}
	note := func(row report.Row, format string, args ...any) report.Row {
		row.Note = fmt.Sprintf(format, args...)
		return row
	}
	own := func(name string) float64 { return s.median("footprint/" + name + "/own") }
	rows := []report.Row{
		row("node resident, idle", "node/idle").Within(reachNode),
		note(row("node resident, just after calls", "node/called"), "%.0f calls", s.median("footprint/calls")).Within(reachNode),
		note(row("node resident, some time after calls", "node/after"), "when they have been 15 s ago").Within(reachNode),
		note(row("node pod, registers itself", "pod/itself"), "%.1f MB with shared pages divided", own("pod/itself")).Only(),
		note(row("node pod, with a registrar", "pod/sidecar"), "%.1f MB with shared pages divided; the registrar is the tests' stand-in",
			own("pod/sidecar")).Only(),
	}
	for _, shares := range []int{0, 1, 5, 20} {
		name := fmt.Sprintf("provisioner/%d", shares)
		rows = append(rows, note(row(fmt.Sprintf("provisioner, %d shares in use", shares), name),
			"%.0f processes; %.1f MB with shared pages divided", s.median("footprint/"+name+"/processes"), own(name)).Only())
	}
	return append(rows, s.sizeRows()...)
}

func (s samples) sizeRows() []report.Row {
	size := func(what, name string) report.Row {
		return report.Row{Area: Footprint, What: what, Ours: s.median("footprint/size/" + name), Unit: "MB"}
	}
	node, provisioner := size("node binary", nodeProgram), size("provisioner binary", provisionerProgram)
	image := size("provisioner image, less its binary", "sharevol-provisioner.tar")
	image.Note = fmt.Sprintf("%.1f MB in all", image.Ours)
	image.Ours -= provisioner.Ours
	return []report.Row{
		report.Row{
			Area: Footprint, What: "node, start until the socket answers", Unit: "ms", BaseName: "its --version",
			Ours: s.median("footprint/start/ready"), Base: s.median("footprint/start/exec"),
		}.Only(),
		node.Only(), size("node image", "sharevol-node.tar").Within(reachNodeImage),
		provisioner.Only(), image.Within(reachProvisioner),
	}
}
