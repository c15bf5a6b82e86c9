package provider

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
)

// places read what is written for a place, by its name.
var places = map[string]func(context.Context, types.Object, placeReader) repository.Place{
	"s3": readS3, "azure": readAzure, "gcs": readGCS, "b2": readB2, "sftp": readSFTP, "webdav": readWebDAV,
}

// placeAttributes are the arguments for places, by name.
func placeAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"s3":     placeAttribute("A bucket of Amazon S3, or of another service with the same interface.", s3Attributes()),
		"azure":  placeAttribute("A container of Azure Blob Storage.", azureAttributes()),
		"gcs":    placeAttribute("A bucket of Google Cloud Storage, by its interface for clients of S3.", gcsAttributes()),
		"b2":     placeAttribute("A bucket of Backblaze B2, by its own interface. Its interface for clients of S3, with `s3`, is the better one.", b2Attributes()),
		"sftp":   placeAttribute("A directory of an SSH server.", sftpAttributes()),
		"webdav": placeAttribute("A directory of a WebDAV server.", webdavAttributes()),
	}
}

func placeAttribute(description string, attributes map[string]schema.Attribute) schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{MarkdownDescription: description, Optional: true, Attributes: attributes}
}

// bucketAttributes are those of all object stores, together with more.
func bucketAttributes(more map[string]schema.Attribute) map[string]schema.Attribute {
	more["bucket"] = requiredText("The bucket, which exists.")
	more["prefix"] = prefixAttribute()
	return more
}

func prefixAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		MarkdownDescription: "Begins the names of all objects of the repository, for one of several in the same place: `vm-backups/`. " +
			"It ends with a slash. Without it, there may be nothing else.",
		Optional: true,
		Validators: []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(`^[^/].*/$`),
			"must end with a slash, and not begin with one")},
	}
}

func requiredText(description string) schema.StringAttribute {
	return schema.StringAttribute{
		MarkdownDescription: description, Required: true, Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
	}
}

func optionalText(description string) schema.StringAttribute {
	return schema.StringAttribute{
		MarkdownDescription: description, Optional: true, Validators: []validator.String{stringvalidator.LengthAtLeast(1)},
	}
}

func secretText(description string) schema.StringAttribute {
	a := optionalText(description)
	a.Sensitive = true
	return a
}

type s3Model struct {
	Bucket             types.String `tfsdk:"bucket"`
	Prefix             types.String `tfsdk:"prefix"`
	Endpoint           types.String `tfsdk:"endpoint"`
	Region             types.String `tfsdk:"region"`
	AccessKeyID        types.String `tfsdk:"access_key_id"`
	SecretAccessKey    types.String `tfsdk:"secret_access_key"`
	SessionToken       types.String `tfsdk:"session_token"`
	InstanceRole       types.Bool   `tfsdk:"instance_role"`
	CAFile             types.String `tfsdk:"ca_file"`
	AllowUnverifiedSSL types.Bool   `tfsdk:"allow_unverified_ssl"`
	ObjectLock         types.Object `tfsdk:"object_lock"`
}

func s3Attributes() map[string]schema.Attribute {
	return bucketAttributes(map[string]schema.Attribute{
		"endpoint": optionalText("The service: `host`, `host:port`, or a URL of `https` or `http`. Or `AWS_ENDPOINT_URL_S3`, or " +
			"`AWS_ENDPOINT_URL`. Default: Amazon S3."),
		"region":            optionalText("The bucket's region. Or `AWS_REGION`, or `AWS_DEFAULT_REGION`. Default: the service is asked."),
		"access_key_id":     optionalText("The ID of the access key. Or `AWS_ACCESS_KEY_ID`."),
		"secret_access_key": secretText("The access key itself. Or `AWS_SECRET_ACCESS_KEY`."),
		"session_token":     secretText("The token that belongs to a temporary access key. Or `AWS_SESSION_TOKEN`."),
		"instance_role": schema.BoolAttribute{
			MarkdownDescription: "Take keys from the role of the machine or the container that this runs on (EC2, ECS, EKS), and " +
				"renew them. Default: `false`.",
			Optional: true,
			Validators: []validator.Bool{boolvalidator.ConflictsWith(
				path.MatchRelative().AtParent().AtName("access_key_id"), path.MatchRelative().AtParent().AtName("secret_access_key"))},
		},
		"ca_file": optionalText("A PEM file with the certificates to trust, instead of the system's. Or `AWS_CA_BUNDLE`."),
		"allow_unverified_ssl": schema.BoolAttribute{
			MarkdownDescription: "Trust any certificate. Whoever can answer in the service's place can delete the backups then; " +
				"prefer `ca_file`. Default: `false`.",
			Optional:   true,
			Validators: []validator.Bool{boolvalidator.ConflictsWith(path.MatchRelative().AtParent().AtName("ca_file"))},
		},
		"object_lock": objectLockAttribute("The bucket must have been created with object lock.", map[string]schema.Attribute{
			"mode": schema.StringAttribute{
				MarkdownDescription: "`governance`: those can lift it who have the permission `s3:BypassGovernanceRetention`. `compliance`: nobody " +
					"can, not even the owner of the account.",
				Required:   true,
				Validators: []validator.String{stringvalidator.OneOf("governance", "compliance")},
			},
		}),
	})
}

func readS3(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m s3Model
	r.as(ctx, object, &m)
	p := &repository.S3{
		Bucket: m.Bucket.ValueString(), Prefix: m.Prefix.ValueString(),
		Endpoint:           r.text(m.Endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
		Region:             r.text(m.Region, "AWS_REGION", "AWS_DEFAULT_REGION"),
		InstanceRole:       m.InstanceRole.ValueBool(),
		AllowUnverifiedSSL: m.AllowUnverifiedSSL.ValueBool(),
	}
	if !m.ObjectLock.IsNull() {
		var l s3LockModel
		r.as(ctx, m.ObjectLock, &l)
		p.Lock = &repository.ObjectLock{
			Mode: repository.LockMode(strings.ToUpper(l.Mode.ValueString())), Period: days(l.Days),
		}
		r.warnOfYears(p.Lock)
	}
	if !p.AllowUnverifiedSSL {
		p.CA = r.file(m.CAFile, "ca_file", "AWS_CA_BUNDLE")
	}
	if p.InstanceRole {
		if r.getenv("AWS_ACCESS_KEY_ID") != "" {
			r.diags.AddAttributeError(r.root.AtName("instance_role"), "Conflicting Arguments", "Keys are to be taken from the role of the machine, "+
				"but the client of S3 prefers those in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment. Remove the variables, or "+
				"instance_role.")
		}
		return p
	}
	// A token of the environment belongs to the key of the environment.
	p.AccessKeyID = r.required(m.AccessKeyID, "access_key_id", "AWS_ACCESS_KEY_ID")
	p.SecretAccessKey = secretOf(r.required(m.SecretAccessKey, "secret_access_key", "AWS_SECRET_ACCESS_KEY"))
	p.SessionToken = secretOf(m.SessionToken.ValueString())
	if m.AccessKeyID.IsNull() {
		p.SessionToken = r.secret(m.SessionToken, "AWS_SESSION_TOKEN")
	}
	return p
}

// objectLockAttribute is for what can lock objects, together with more.
func objectLockAttribute(needs string, more map[string]schema.Attribute) schema.SingleNestedAttribute {
	more["days"] = schema.Int64Attribute{
		MarkdownDescription: "For how many days, at least `2`. Maintenance renews it for everything that is in the repository, so that it " +
			"begins when something isn't used any more.",
		Required:   true,
		Validators: []validator.Int64{int64validator.Between(2, 36500)},
	}
	return schema.SingleNestedAttribute{
		MarkdownDescription: "Have the service refuse to delete or overwrite what is written, whoever asks. " + needs + " A repository that was " +
			"locked stays so when this is removed, and one that is locked more strongly is refused.",
		Optional:   true,
		Attributes: more,
	}
}

type s3LockModel struct {
	Mode types.String `tfsdk:"mode"`
	Days types.Int64  `tfsdk:"days"`
}

type azureLockModel struct {
	Days types.Int64 `tfsdk:"days"`
}

func days(n types.Int64) time.Duration { return time.Duration(n.ValueInt64()) * 24 * time.Hour }

// longLock is above what people mean who write a number of days.
const longLock = 365 * 24 * time.Hour

// warnOfYears warns, in every plan, of a lock that nobody will be able to lift for more than a year.
func (r placeReader) warnOfYears(l *repository.ObjectLock) {
	if l.Mode == repository.LockCompliance && l.Period > longLock {
		r.diags.AddAttributeWarning(r.root.AtName("object_lock"), "Object Lock for Years", fmt.Sprintf("Nobody can delete what is written to this "+
			"repository for %d days, and maintenance renews that for all that is in it. Nobody can lift the lock or shorten it, not even the owner "+
			"of the account, and the space is paid for until then.", l.Period/(24*time.Hour)))
	}
}

type azureModel struct {
	Account            types.String `tfsdk:"account"`
	Container          types.String `tfsdk:"container"`
	Prefix             types.String `tfsdk:"prefix"`
	Key                types.String `tfsdk:"key"`
	SASToken           types.String `tfsdk:"sas_token"`
	TenantID           types.String `tfsdk:"tenant_id"`
	ClientID           types.String `tfsdk:"client_id"`
	ClientSecret       types.String `tfsdk:"client_secret"`
	FederatedTokenFile types.String `tfsdk:"federated_token_file"`
	Endpoint           types.String `tfsdk:"endpoint"`
	ObjectLock         types.Object `tfsdk:"object_lock"`
}

func azureAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"account":              optionalText("The storage account. Or `AZURE_STORAGE_ACCOUNT`."),
		"container":            requiredText("The container, which exists."),
		"prefix":               prefixAttribute(),
		"key":                  secretText("A key of the account. Or `AZURE_STORAGE_KEY`."),
		"sas_token":            secretText("A shared access signature, instead of `key`. Or `AZURE_STORAGE_SAS_TOKEN`."),
		"tenant_id":            optionalText("The tenant of a service principal. Or `AZURE_TENANT_ID`."),
		"client_id":            optionalText("The client ID of a service principal. Or `AZURE_CLIENT_ID`."),
		"client_secret":        secretText("The secret of a service principal. Or `AZURE_CLIENT_SECRET`."),
		"federated_token_file": optionalText("A file with the token of a workload identity, instead of `client_secret`. Or `AZURE_FEDERATED_TOKEN_FILE`."),
		"endpoint": optionalText("The domain of the storage accounts, for clouds other than Azure's public one. " +
			"Default: `blob.core.windows.net`."),
		"object_lock": objectLockAttribute("The container must have support for version-level immutability.", map[string]schema.Attribute{}),
	}
}

func readAzure(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m azureModel
	r.as(ctx, object, &m)
	p := &repository.Azure{
		Account:   r.required(m.Account, "account", "AZURE_STORAGE_ACCOUNT"),
		Container: m.Container.ValueString(), Prefix: m.Prefix.ValueString(), Endpoint: m.Endpoint.ValueString(),
	}
	if !m.ObjectLock.IsNull() {
		var l azureLockModel
		r.as(ctx, m.ObjectLock, &l)
		p.Lock = &repository.ObjectLock{Mode: repository.LockCompliance, Period: days(l.Days)}
		r.warnOfYears(p.Lock)
	}
	// What is written goes before all that the environment has. A key of the environment is that of its account.
	same := r.getenv("AZURE_STORAGE_ACCOUNT") == "" || r.getenv("AZURE_STORAGE_ACCOUNT") == p.Account
	principal := !m.TenantID.IsNull() || !m.ClientID.IsNull() || !m.ClientSecret.IsNull() || !m.FederatedTokenFile.IsNull()
	if m.Key.IsNull() && m.SASToken.IsNull() && !principal && same {
		p.SASToken, p.Key = r.secret(m.SASToken, "AZURE_STORAGE_SAS_TOKEN"), r.secret(m.Key, "AZURE_STORAGE_KEY")
	} else {
		p.SASToken, p.Key = secretOf(m.SASToken.ValueString()), secretOf(m.Key.ValueString())
	}
	p.TenantID, p.ClientID = r.text(m.TenantID, "AZURE_TENANT_ID"), r.text(m.ClientID, "AZURE_CLIENT_ID")
	p.ClientSecret = r.secret(m.ClientSecret, "AZURE_CLIENT_SECRET")
	p.FederatedTokenFile = r.text(m.FederatedTokenFile, "AZURE_FEDERATED_TOKEN_FILE")
	if !p.HasCredentials() {
		r.missing("key", "Set key, sas_token, or tenant_id and client_id with client_secret or federated_token_file, or the environment "+
			"variable AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.")
	}
	return p
}

type gcsModel struct {
	Bucket   types.String `tfsdk:"bucket"`
	Prefix   types.String `tfsdk:"prefix"`
	AccessID types.String `tfsdk:"hmac_access_id"`
	Secret   types.String `tfsdk:"hmac_secret"`
}

func gcsAttributes() map[string]schema.Attribute {
	return bucketAttributes(map[string]schema.Attribute{
		"hmac_access_id": optionalText("The access ID of an HMAC key. Or `GS_ACCESS_KEY_ID`."),
		"hmac_secret":    secretText("The secret of the HMAC key. Or `GS_SECRET_ACCESS_KEY`."),
	})
}

func readGCS(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m gcsModel
	r.as(ctx, object, &m)
	return &repository.GCS{
		Bucket: m.Bucket.ValueString(), Prefix: m.Prefix.ValueString(),
		AccessID: r.required(m.AccessID, "hmac_access_id", "GS_ACCESS_KEY_ID"),
		Secret:   secretOf(r.required(m.Secret, "hmac_secret", "GS_SECRET_ACCESS_KEY")),
	}
}

type b2Model struct {
	Bucket types.String `tfsdk:"bucket"`
	Prefix types.String `tfsdk:"prefix"`
	KeyID  types.String `tfsdk:"key_id"`
	Key    types.String `tfsdk:"key"`
}

func b2Attributes() map[string]schema.Attribute {
	return bucketAttributes(map[string]schema.Attribute{
		"key_id": optionalText("The ID of the application key. Or `B2_APPLICATION_KEY_ID`."),
		"key":    secretText("The application key itself. Or `B2_APPLICATION_KEY`."),
	})
}

func readB2(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m b2Model
	r.as(ctx, object, &m)
	return &repository.B2{
		Bucket: m.Bucket.ValueString(), Prefix: m.Prefix.ValueString(),
		KeyID: r.required(m.KeyID, "key_id", "B2_APPLICATION_KEY_ID"),
		Key:   secretOf(r.required(m.Key, "key", "B2_APPLICATION_KEY")),
	}
}

type sftpModel struct {
	Host           types.String `tfsdk:"host"`
	Port           types.Int64  `tfsdk:"port"`
	User           types.String `tfsdk:"user"`
	Path           types.String `tfsdk:"path"`
	Password       types.String `tfsdk:"password"`
	PrivateKey     types.String `tfsdk:"private_key"`
	PrivateKeyFile types.String `tfsdk:"private_key_file"`
	KnownHosts     types.String `tfsdk:"known_hosts"`
	KnownHostsFile types.String `tfsdk:"known_hosts_file"`
}

const (
	envSFTPPassword = "VM_REPOSITORY_SFTP_PASSWORD"    //nolint:gosec // the name of a variable, not a password
	envSFTPKey      = "VM_REPOSITORY_SFTP_PRIVATE_KEY" //nolint:gosec // as above
	envSFTPKeyFile  = "VM_REPOSITORY_SFTP_PRIVATE_KEY_FILE"
)

func sftpAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"host": requiredText("The server."),
		"port": schema.Int64Attribute{
			MarkdownDescription: "Its port. Default: `22`.", Optional: true, Validators: []validator.Int64{int64validator.Between(1, 65535)},
		},
		"user": requiredText("The user to log in as."),
		"path": schema.StringAttribute{
			MarkdownDescription: "The directory on the server, from its root. It is created if it doesn't exist, and refused if it has something else in it.",
			Required:            true,
			Validators:          []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(`^/`), "must begin with a slash")},
		},
		"password":         secretText("The user's password, if there is no key. Or `" + envSFTPPassword + "`."),
		"private_key":      secretText("The user's private key, in PEM or OpenSSH form and without a passphrase. Or `" + envSFTPKey + "`."),
		"private_key_file": optionalText("The absolute path of a file with the private key. Or `" + envSFTPKeyFile + "`."),
		"known_hosts":      optionalText("Lines of a `known_hosts` file with the server's host keys."),
		"known_hosts_file": optionalText("The absolute path of a `known_hosts` file. Default: `.ssh/known_hosts` of the user who runs Terraform."),
	}
}

func readSFTP(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m sftpModel
	r.as(ctx, object, &m)
	p := &repository.SFTP{
		Host: m.Host.ValueString(), Port: int(m.Port.ValueInt64()), User: m.User.ValueString(), Path: m.Path.ValueString(),
		KnownHosts: m.KnownHosts.ValueString(), KnownHostsFile: m.KnownHostsFile.ValueString(),
		Password: secretOf(m.Password.ValueString()), Key: secretOf(m.PrivateKey.ValueString()), KeyFile: m.PrivateKeyFile.ValueString(),
	}
	if !p.HasCredentials() { // what is written goes before all that the environment has
		p.Password, p.Key = r.secret(m.Password, envSFTPPassword), r.secret(m.PrivateKey, envSFTPKey)
		p.KeyFile = r.text(m.PrivateKeyFile, envSFTPKeyFile)
	}
	if !p.HasCredentials() {
		r.missing("private_key_file", "Set private_key_file, private_key or password, or the environment variable "+envSFTPKeyFile+", "+
			envSFTPKey+" or "+envSFTPPassword+".")
	}
	return p
}

type webdavModel struct {
	URL        types.String `tfsdk:"url"`
	User       types.String `tfsdk:"user"`
	Password   types.String `tfsdk:"password"`
	Thumbprint types.String `tfsdk:"thumbprint"`
}

const (
	envWebDAVUser     = "VM_REPOSITORY_WEBDAV_USER"
	envWebDAVPassword = "VM_REPOSITORY_WEBDAV_PASSWORD" //nolint:gosec // the name of a variable, not a password
)

func webdavAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"url":      requiredText("The URL of the directory, of `https` or `http`, without user and password."),
		"user":     optionalText("The user to log in as. Or `" + envWebDAVUser + "`. Default: nobody logs in."),
		"password": secretText("The user's password. Or `" + envWebDAVPassword + "`."),
		"thumbprint": schema.StringAttribute{
			MarkdownDescription: "The thumbprint (SHA-256) of the server's certificate in hexadecimal, with or without colons: trust this " +
				"certificate, whoever signed it, and no other.",
			Optional: true,
			Validators: []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(`^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$`),
				"must be 32 bytes (SHA-256) in hexadecimal")},
		},
	}
}

func readWebDAV(ctx context.Context, object types.Object, r placeReader) repository.Place {
	var m webdavModel
	r.as(ctx, object, &m)
	return &repository.WebDAV{
		URL: m.URL.ValueString(), User: r.text(m.User, envWebDAVUser), Password: r.secret(m.Password, envWebDAVPassword),
		Thumbprint: m.Thumbprint.ValueString(),
	}
}
