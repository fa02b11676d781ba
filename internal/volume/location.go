package volume

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Full returns the path of d on its server: share and subDir joined, clean, without
// slashes at the end.
func (d Directory) Full() string { return path.Join("/", d.Share.Path, string(d.SubDir)) }

// metadataKeys are the attributes that csi-driver-nfs fills variables of a subDir
// with when it mounts one.
var metadataKeys = map[string]string{
	"csi.storage.k8s.io/pvc/name":      "${pvc.metadata.name}",
	"csi.storage.k8s.io/pvc/namespace": "${pvc.metadata.namespace}",
	"csi.storage.k8s.io/pv/name":       "${pv.metadata.name}",
}

// LocationFromAttributes reads where on NFS the volume of any driver has its data,
// from whatever volumeAttributes that driver writes: server, share and subDir in any
// letter case, with or without slashes at their ends. It judges nothing: the subDir
// may be empty or lead out of the share, and Full says where to. Without server and share
// it is where they say that a volume of a type of ours has its data, which read finds. It
// returns false if they don't.
func LocationFromAttributes(attributes map[string]string, read ReadShare) (Directory, bool) {
	values := make(map[string]string, len(attributes))
	for _, key := range slices.Sorted(maps.Keys(attributes)) { // so that it is the same each time
		values[strings.ToLower(key)] = attributes[key]
	}
	server, share, subDir := values[AttrServer], values[AttrShare], subDirOf(values)
	if server == "" || share == "" {
		if values[AttrType] == "" {
			return Directory{}, false
		}
		d, errs := DirectoryFromAttributes(attributes, nil, read)
		return d, len(errs) == 0
	}
	if subDir = path.Clean(strings.Trim(subDir, "/")); subDir == "." {
		subDir = ""
	}
	return Directory{Share: Share{Server: server, Path: path.Join("/", share)}, SubDir: SubDir(subDir)}, true
}

// subDirOf returns the subDir of attributes whose names are in lower case, with the
// variables filled in that csi-driver-nfs would fill in.
func subDirOf(values map[string]string) string {
	subDir := values[strings.ToLower(attrSubDir)]
	for key, variable := range metadataKeys {
		if value, ok := values[key]; ok {
			subDir = strings.ReplaceAll(subDir, variable, value)
		}
	}
	return subDir
}

// CanonicalServer returns server in a form in which two spellings of one name or
// address are equal: in lower case, without brackets or a final dot, an address as
// netip writes it, an IPv4 address that is mapped to IPv6 as IPv4.
func CanonicalServer(server string) string {
	server = strings.TrimSuffix(strings.ToLower(server), ".")
	bare := strings.TrimSuffix(strings.TrimPrefix(server, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		return addr.Unmap().String()
	}
	return bare
}
