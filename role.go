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
)

// Roles are all roles there are, in the order in which they are listed to people.
var Roles = []Role{RoleDevice, RoleViewer, RoleOperator, RoleAdministrator, RoleNode}

// May tells whether a holder of the role r may do what asks for at least the role
// need. Neither a device nor a node may do anything but its own part, and nobody
// else speaks as a node.
func (r Role) May(need Role) bool {
	switch need {
	case RoleDevice:
		return r == RoleDevice || r == RoleOperator || r == RoleAdministrator
	case RoleViewer:
		return r == RoleViewer || r == RoleOperator || r == RoleAdministrator
	case RoleOperator:
		return r == RoleOperator || r == RoleAdministrator
	case RoleAdministrator, RoleNode:
		return r == need
	}
	return false
}
