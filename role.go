package fleetscore

// Role is what the holder of a token may do.
type Role string

// The roles. A viewer reads; an operator also works with jobs, fleets and rows; an
// administrator also changes the configuration and the tokens. A device sends
// readings and does nothing else, a node speaks the node protocol and nothing else.
const (
	RoleDevice        Role = "device"
	RoleViewer        Role = "viewer"
	RoleOperator      Role = "operator"
	RoleAdministrator Role = "administrator"
	RoleNode          Role = "node"
	// RoleJoin is that of tokens by which one node may join a pool, once. They are made
	// for a pool, not by their role.
	RoleJoin Role = "join"
	// The roles of programs that pull or push container images and do nothing else.
	RoleImagePull Role = "image-pull"
	RoleImagePush Role = "image-push"
)

// Roles lists all roles in the order in which people see them.
var Roles = []Role{RoleDevice, RoleViewer, RoleOperator, RoleAdministrator, RoleNode, RoleImagePull, RoleImagePush}

// May reports whether the role r may do what needs at least the role need. A device
// and a node may do only their own part, and no other role may speak as a node.
func (r Role) May(need Role) bool {
	switch need {
	case RoleDevice:
		return r == RoleDevice || r == RoleOperator || r == RoleAdministrator
	case RoleViewer:
		return r == RoleViewer || r == RoleOperator || r == RoleAdministrator
	case RoleOperator:
		return r == RoleOperator || r == RoleAdministrator
	case RoleImagePull:
		return r == RoleImagePull || r == RoleImagePush || r.May(RoleViewer)
	case RoleImagePush:
		return r == RoleImagePush || r.May(RoleOperator)
	case RoleAdministrator, RoleNode, RoleJoin:
		return r == need
	}
	return false
}
