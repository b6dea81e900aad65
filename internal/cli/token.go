package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
)

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens of devices, people, programs and nodes"}
	columns := []string{"token", "role", "created", "hour of last use", "expires", "expired", "old secret until", "old hour of last use"}
	row := func(l *listing, v any, t api.Token) {
		expired := ""
		if t.Expired {
			expired = "yes"
		}
		l.add(v, t.Name, string(t.Role), t.Created, t.Used, t.Expires, expired, t.OldUntil, t.OldUsed)
	}
	cmd.AddCommand(newTokenCreateCommand(), newTokenRotateCommand(),
		remote(&cobra.Command{Use: "list", Short: "List the tokens, without their secrets", Long: `Lists the tokens, without their secrets. Of its last use only the hour is kept, so that a
token that is used all the time isn't written all the time.`, Example: "  fleetscore token list", Args: cobra.NoArgs},
			func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
				l, query := &listing{columns: columns}, url.Values{}
				for {
					var page api.List[api.Token]
					if err := c.Get(ctx, "/tokens", query, &page); err != nil {
						return nil, err
					}
					for _, t := range page.Items {
						row(l, t, t)
					}
					if page.Next == "" {
						return l, nil
					}
					query.Set("after", page.Next)
				}
			}),
		&cobra.Command{Use: "remove NAME", Short: "End a token at once", Example: "  fleetscore token remove press-1", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := dial(cmd)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.Send(cmd.Context(), http.MethodDelete, "/tokens/"+url.PathEscape(args[0]), nil, "", nil, nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "token %s is refused from now on\n", args[0])
				return nil
			}})
	return cmd
}

func newTokenCreateCommand() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:   "create ROLE NAME",
		Short: "Create a token and print its secret, which can't be shown again",
		Long: `Creates a token and writes its secret to stdout. The server keeps only its hash, so
it can't be shown again.

Roles: device sends readings and nothing else; viewer reads; operator also submits
and cancels jobs, syncs fleets, uploads rows and models; administrator also applies
configurations and works with tokens; node takes part in a pool and nothing else.

To replace a token's secret without a pause: fleetscore token rotate NAME.`,
		Example: "  fleetscore token create device press-1 --expires 365d > press-1.token",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"role": args[0], "name": args[1]}
			if err := setExpiry(in, expires); err != nil {
				return err
			}
			_, err := newSecret(cmd, "/tokens", in)
			return err
		}}
	cmd.Flags().StringVar(&expires, "expires", "", "how long it is good for, e.g. 90d; without it, until it is removed")
	return cmd
}

// setExpiry sets the end of a token, if one was given.
func setExpiry(in map[string]any, expires string) error {
	if expires == "" {
		return nil
	}
	d, err := fleetscore.ParseDuration(expires)
	if err != nil || d <= 0 {
		return usagef("--expires %s: not a duration such as 90d", expires)
	}
	in["expires"] = time.Now().Add(d.D()).UTC().Truncate(time.Second)
	return nil
}

// newSecret asks the server for a token's secret and writes it to stdout.
func newSecret(cmd *cobra.Command, path string, in any) (t api.NewToken, err error) {
	c, err := dial(cmd)
	if err != nil {
		return t, err
	}
	defer c.Close()
	if err := c.Post(cmd.Context(), path, in, &t); err != nil {
		return t, err
	}
	fmt.Fprintln(cmd.OutOrStdout(), t.Secret)
	return t, nil
}

func newTokenRotateCommand() *cobra.Command {
	var overlap, expires string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a token a new secret, while the old one stays valid for a while",
		Long: `Gives a token a new secret and writes it to stdout. The secret before stays valid
for the time of --overlap, so that whoever uses it can change to the new one without a
pause. "fleetscore token list" shows until when it is valid and when it was last used.
The token's name and role stay, and so do the nodes that use it.

If a secret became known to others, refuse it at once with --overlap 0: this ends all
older secrets and the browsers that were signed in with them. Without --expires the new
secret is valid for as long as the token was when it got its last secret.`,
		Example: "  fleetscore token rotate press-1 --overlap 24h > press-1.token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := fleetscore.ParseDuration(overlap)
			if err != nil && overlap != "0" || d < 0 {
				return usagef("--overlap %s: not a duration such as 24h; 0 refuses the old secret at once", overlap)
			}
			in := map[string]any{"overlap": d}
			if err := setExpiry(in, expires); err != nil {
				return err
			}
			t, err := newSecret(cmd, "/tokens/"+url.PathEscape(args[0])+"/rotate", in)
			if err != nil {
				return err
			}
			if t.OldUntil != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "the secret before is valid until %s UTC\n", stamp(*t.OldUntil))
			} else {
				fmt.Fprintln(cmd.ErrOrStderr(), "all older secrets are refused from now on")
			}
			return nil
		}}
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long the secret before stays valid, up to 90d")
	cmd.Flags().StringVar(&expires, "expires", "", "how long the token is good for, e.g. 90d")
	return cmd
}

func newPortalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "portal",
		Short: "Print an address that signs a browser in to the portal",
		Long: `Prints an address that signs a browser in with the rights of this command: those of
the token named by --token-file, or of an administrator for the user who runs the
server on this machine. The address works once, within 15 minutes.`,
		Example: "  fleetscore portal",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var link api.SignInLink
			if err := c.Post(cmd.Context(), "/sign-in-links", nil, &link); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/?token=%s\n", c.Server(), link.Code)
			return nil
		}}
}

func newJoinTokenCommand() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:   "join-token POOL",
		Short: "Create a one-time token by which one machine may join a static pool",
		Long: `Creates a token by which exactly one node may join the pool, and writes its secret to
stdout; it can't be shown again. Bring it to the machine in a file, and start the agent there
(fleetscore node). The agent exchanges it for a credential of its own, which is for that
node of that pool only. Unused, the token expires.`,
		Example: "  fleetscore pool join-token lab --expires 1h > lab.token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := fleetscore.ParseDuration(expires)
			if err != nil || d <= 0 {
				return usagef("--expires %s: not a duration such as 24h", expires)
			}
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var t api.NewToken
			if err := c.Post(cmd.Context(), "/pools/"+url.PathEscape(args[0])+"/join-tokens", map[string]any{"expires": time.Now().Add(d.D()).UTC().Truncate(time.Second)}, &t); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t.Secret)
			return nil
		}}
	cmd.Flags().StringVar(&expires, "expires", "24h", "how long it may be unused, at most 90d")
	return cmd
}
