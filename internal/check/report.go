package check

import (
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

// Statuses of a Report.
const (
	StatusOK        = "ok"         // all well
	StatusAttention = "attention"  // something has a fault
	StatusUndone    = "incomplete" // something could not be checked
)

// Report is what a check found. The README documents the names of its fields in JSON,
// which do not change: fields may be added.
type Report struct {
	Status  string    `json:"status"`
	Driver  string    `json:"driver"`
	Cluster string    `json:"cluster"` // UID of the namespace kube-system
	Time    time.Time `json:"time"`
	// Problems are why something could not be checked.
	Problems []string `json:"problems"`
	Classes  []Class  `json:"classes"`
	Volumes  []Volume `json:"volumes"`
	Shares   []*Share `json:"shares"`
}

// Class is a StorageClass of the provisioner's.
type Class struct {
	Name        string `json:"name"`
	Provisioner string `json:"provisioner"`
	Share       string `json:"share"`
	OnDelete    string `json:"onDelete"`
	Served      bool   `json:"served"`
	// Elsewhere says that its share is not one of those that are premounted here.
	Elsewhere bool     `json:"elsewhere"`
	Ignored   []string `json:"ignoredParameters"`
	Faults    []string `json:"faults"`
}

// Volume is a PersistentVolume that the provisioner has to do with.
type Volume struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"` // provisioned, adopted or static
	Phase    string   `json:"phase"`
	Claim    string   `json:"claim"`
	Class    string   `json:"class"`
	Share    string   `json:"share"`
	SubDir   string   `json:"subDir"`
	OnDelete string   `json:"onDelete"`
	Faults   []string `json:"faults"`
}

// Share is one share.
type Share struct {
	Share        string   `json:"share"`
	Premounted   string   `json:"premounted"` // the path, empty if it is not
	Reachable    bool     `json:"reachable"`
	MountOptions []string `json:"mountOptions"`
	NFSVersion   string   `json:"nfsVersion"`
	ID           string   `json:"id"`
	Bytes        uint64   `json:"bytes"`
	FreeBytes    uint64   `json:"freeBytes"`
	Inodes       uint64   `json:"inodes"` // zero if the server counts none
	FreeInodes   uint64   `json:"freeInodes"`
	Volumes      int      `json:"volumes"`
	// OtherClusters counts directories that records of other clusters speak for.
	OtherClusters int       `json:"otherClusters"`
	Missing       []Missing `json:"missing"`
	Orphans       []Orphan  `json:"orphans"`
	Archives      []Kept    `json:"archives"`
	Trash         []Kept    `json:"trash"`
	NotListed     NotListed `json:"notListed"`
	Faults        []string  `json:"faults"`
}

// NotListed counts what the lists of a share leave out.
type NotListed struct {
	Missing  int `json:"missing"`
	Orphans  int `json:"orphans"`
	Archives int `json:"archives"`
	Trash    int `json:"trash"`
}

// Missing is a volume whose directory is not on its share.
type Missing struct {
	Volume string `json:"volume"`
	SubDir string `json:"subDir"`
	Why    string `json:"why"` // what is there instead; empty for nothing
}

// Orphan is a directory that nothing in the cluster names.
type Orphan struct {
	Path    string    `json:"path"`
	Volume  string    `json:"volume"` // which volume of this cluster it was made for; empty without a record
	Changed time.Time `json:"changed"`
}

// Kept is an archive, or a directory in the trash.
type Kept struct {
	Path   string    `json:"path"`
	Volume string    `json:"volume"` // empty if that is not known
	Since  time.Time `json:"since"`
	Bytes  uint64    `json:"bytes"`
	Files  uint64    `json:"files"`
	// Cut says why bytes and files are not all; empty if they are.
	Cut string `json:"cut"`
}

func newShare(s volume.Share, premounted string) *Share {
	return &Share{
		Share: s.String(), Premounted: premounted, MountOptions: []string{}, Missing: []Missing{}, Orphans: []Orphan{},
		Archives: []Kept{}, Trash: []Kept{}, Faults: []string{},
	}
}

// conclude gives the report its status.
func (r *Report) conclude() {
	faults := 0
	for _, class := range r.Classes {
		faults += len(class.Faults)
	}
	for _, v := range r.Volumes {
		faults += len(v.Faults)
	}
	for _, share := range r.Shares {
		faults += len(share.Faults)
	}
	switch {
	case len(r.Problems) > 0:
		r.Status = StatusUndone
	case faults > 0:
		r.Status = StatusAttention
	default:
		r.Status = StatusOK
	}
}

// ExitStatus is that of the program: 0 if all is well, 1 if something needs attention,
// 2 if something could not be checked.
func (r *Report) ExitStatus() int {
	switch r.Status {
	case StatusOK:
		return 0
	case StatusAttention:
		return 1
	}
	return 2
}
