/* An ISID names the initiator's end of a session. A target that sees a login with the initiator name, the ISID and the
 * portal group of a session that it has, and TSIH 0, ends that session with all its tasks before it answers (session
 * reinstatement, RFC 7143 section 6.3.5). That is the fence of this backend: nothing of the older session can land
 * after the login's answer. Therefore the ISID is a function of the mount, the LUN and a number, of the type "random"
 * (section 11.12.5, T = 10b) since svmfs has no enterprise number. */
#include "backends/iscsi_link.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* Status of a login response, class << 8 | detail (RFC 7143 section 11.13.5). */
#define LOGIN_REDIRECT_TEMPORARY 0x0101
#define LOGIN_REDIRECT_PERMANENT 0x0102
#define LOGIN_AUTHENTICATION     0x0201
#define LOGIN_FORBIDDEN          0x0202
#define LOGIN_NO_TARGET          0x0203
#define LOGIN_REMOVED            0x0204
#define LOGIN_OUT_OF_RESOURCES   0x0302

static uint64_t hash(uint64_t sum, const void *memory, size_t size)
{
    for (const unsigned char *byte = memory; size > 0; size--)
        sum = (sum ^ *byte++) * 0x100000001b3ull; /* FNV-1a */
    return sum;
}

static void name_initiator(struct lun_account *account, const struct identity *identity, uint64_t mount)
{
    char host[65];
    size_t length = 0;
    for (const char *c = identity->host; *c && length + 1 < sizeof(host); c++)
        if (isalnum((unsigned char)*c) || *c == '-' || *c == '.')
            host[length++] = (char)tolower((unsigned char)*c);
    host[length] = 0;
    snprintf(account->initiator, sizeof(account->initiator), "iqn.2026-01.io.svmfs:%s%s%016" PRIx64, host,
        length ? "-" : "", mount);
}

static int read_secrets(struct lun_account *account, const struct datastore_options *options, struct sentence *why)
{
    if (*account->url.user && !options->password_file)
        return refuse(why, -EINVAL,
            "datastore %s: the url names the CHAP user %s, but no password-file says its secret; add password-file = "
            "FILE",
            account->name, account->url.user);
    if (!*account->url.user && (options->password_file || options->mutual_user || options->mutual_password_file))
        return refuse(why, -EINVAL,
            "datastore %s: there is a secret for CHAP, but the url names no user; write iscsi://USER@portal/…",
            account->name);
    if (!options->mutual_user != !options->mutual_password_file)
        return refuse(
            why, -EINVAL, "datastore %s: mutual-user and mutual-password-file belong together", account->name);
    int error = 0;
    if (options->password_file)
        error = lun_secret_read(account->secret, account->name, options->password_file, why);
    if (!error && options->mutual_user) {
        snprintf(account->mutual_user, sizeof(account->mutual_user), "%s", options->mutual_user);
        error = lun_secret_read(account->mutual_secret, account->name, options->mutual_password_file, why);
    }
    if (!error && *account->mutual_secret && strcmp(account->secret, account->mutual_secret) == 0)
        error = refuse(why, -EINVAL,
            "datastore %s: the secret of mutual CHAP is the same as the other one; RFC 7143 wants two", account->name);
    return error;
}

int lun_account_init(
    struct lun_account *account, const struct datastore *datastore, const char *rest, struct sentence *why)
{
    const struct identity *identity = &datastore->identity;
    uint64_t mount = identity->mount;
    memset(account, 0, sizeof(*account));
    snprintf(account->name, sizeof(account->name), "%s", datastore->name);
    account->stopping = datastore_stopping(datastore);
    int error = lun_url_parse(&account->url, account->name, rest, why);
    if (!error)
        error = read_secrets(account, &datastore->options, why);
    if (error)
        return error;
    /* A process without a mount must not end another's sessions. */
    if (mount == 0 && getrandom(&mount, sizeof(mount), 0) != sizeof(mount))
        return refuse(why, -EIO, "datastore %s: no random number is to be had", account->name);
    if (*account->url.initiator)
        strcpy(account->initiator, account->url.initiator);
    else
        name_initiator(account, identity, mount);
    uint64_t sum = hash(0xcbf29ce484222325ull, &mount, sizeof(mount));
    sum = hash(sum, &account->url.lun, sizeof(account->url.lun));
    sum = hash(sum, account->url.target, strlen(account->url.target));
    account->isid = (uint32_t)(sum ^ sum >> 24 ^ sum >> 48) & 0xffffff;
    return 0;
}

void lun_account_wipe(struct lun_account *account)
{
    explicit_bzero(account->secret, sizeof(account->secret));
    explicit_bzero(account->mutual_secret, sizeof(account->mutual_secret));
}

static void fail(struct lun_link *link, int error)
{
    if (link->state == LUN_LINK_FAILED)
        return;
    if (link->context && !*link->text)
        snprintf(link->text, sizeof(link->text), "%s", iscsi_get_error(link->context));
    link->state = LUN_LINK_FAILED;
    link->error = error;
}

/* libiscsi tells the login's status only in its text, in parentheses. */
static int login_status(const char *text)
{
    const char *open = strrchr(text, '(');
    return open ? atoi(open + 1) : 0;
}

static int login_error(int status)
{
    switch (status) {
    case LOGIN_AUTHENTICATION:
    case LOGIN_FORBIDDEN:
        return -EACCES;
    case LOGIN_NO_TARGET:
    case LOGIN_REMOVED:
        return -ENOENT;
    case LOGIN_OUT_OF_RESOURCES:
        return -EAGAIN;
    default:
        return -EPROTO;
    }
}

static void logged_in(struct iscsi_context *context, int status, void *data, void *argument)
{
    struct lun_link *link = argument;
    if (status == SCSI_STATUS_GOOD) {
        link->state = LUN_LINK_UP;
        return;
    }
    snprintf(link->text, sizeof(link->text), "%s", iscsi_get_error(context));
    const char *address = iscsi_get_target_address(context);
    int number = login_status(link->text);
    if (*link->account->mutual_user && number == 0 && strstr(link->text, "CHAP"))
        number = LOGIN_AUTHENTICATION; /* the target's answer was wrong */
    if (status == SCSI_STATUS_REDIRECT && address)
        snprintf(link->redirect, sizeof(link->redirect), "%s", address);
    fail(link, status == SCSI_STATUS_REDIRECT ? -EAGAIN : login_error(number));
}

static void connected(struct iscsi_context *context, int status, void *data, void *argument)
{
    struct lun_link *link = argument;
    if (status != SCSI_STATUS_GOOD) {
        fail(link, -ECONNREFUSED);
        return;
    }
    link->state = LUN_LINK_LOGIN;
    if (iscsi_login_async(context, logged_in, link) != 0)
        fail(link, -EPROTO);
}

static bool prepare(struct iscsi_context *context, const struct lun_account *account, unsigned number)
{
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_reconnect_max_retries(context, 0);
    int error = iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    error |= iscsi_set_targetname(context, account->url.target);
    error |= iscsi_set_isid_random(context, account->isid, number);
    error |= iscsi_set_header_digest(
        context, account->url.header_digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    /* A user always: without one libiscsi leaves out the security stage of the login, and tgt reinstates only there
     * (law 6). A target that wants no CHAP answers None and never sees it. */
    if (*account->url.user)
        error |= iscsi_set_initiator_username_pwd(context, account->url.user, account->secret);
    else
        error |= iscsi_set_initiator_username_pwd(context, "svmfs", "no secret");
    if (*account->mutual_user)
        error |= iscsi_set_target_username_pwd(context, account->mutual_user, account->mutual_secret);
    return error == 0;
}

bool lun_link_open(struct lun_link *link, const struct lun_account *account, const char *portal, unsigned number)
{
    *link = (struct lun_link){.account = account, .state = LUN_LINK_CONNECTING};
    link->context = iscsi_create_context(account->initiator);
    if (!link->context) {
        fail(link, -ENOMEM);
        return false;
    }
    if (!prepare(link->context, account, number))
        fail(link, -EINVAL);
    else if (iscsi_connect_async(link->context, portal, connected, link) != 0)
        fail(link, -EHOSTUNREACH);
    else
        fcntl(lun_link_fd(link), F_SETFD, FD_CLOEXEC);
    return link->state != LUN_LINK_FAILED;
}

void lun_link_close(struct lun_link *link)
{
    struct iscsi_context *context = link->context;
    link->context = NULL;
    if (link->state != LUN_LINK_FAILED)
        link->state = LUN_LINK_CLOSED;
    if (context)
        iscsi_destroy_context(context);
}

int lun_link_fd(const struct lun_link *link)
{
    return link->context ? iscsi_get_fd(link->context) : -1;
}

bool lun_link_service(struct lun_link *link, unsigned events)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (link->state == LUN_LINK_CONNECTING && events & (POLLERR | POLLHUP)) {
        getsockopt(lun_link_fd(link), SOL_SOCKET, SO_ERROR, &error, &size);
        fail(link, error ? -error : -ECONNREFUSED);
        return false;
    }
    /* What the target said before it hung up is read first: it may say why. */
    unsigned gone = events & (POLLERR | POLLHUP | POLLRDHUP);
    events &= link->state == LUN_LINK_UP ? POLLIN : POLLIN | POLLOUT; /* once it is up, push sends */
    if (events && link->state != LUN_LINK_FAILED && iscsi_service(link->context, (int)events) < 0)
        fail(link, -ECONNRESET);
    if (gone)
        fail(link, -ECONNRESET);
    if (events & POLLIN && lun_link_blocked(link))
        link->queued += 2; /* what the target asked for */
    return link->state != LUN_LINK_FAILED && lun_link_push(link);
}

bool lun_link_blocked(const struct lun_link *link)
{
    return link->state == LUN_LINK_CONNECTING || (link->context && iscsi_which_events(link->context) & POLLOUT);
}

static void set(const struct lun_link *link, int option, int value)
{
    setsockopt(lun_link_fd(link), IPPROTO_TCP, option, &value, sizeof(value));
}

/* libiscsi makes a system call for each header and each piece of data; corked they share segments. A corked socket stays
 * so: to set TCP_NODELAY sends what it holds. */
bool lun_link_push(struct lun_link *link)
{
    if (link->state <= LUN_LINK_CONNECTING || link->state == LUN_LINK_FAILED ||
        !(iscsi_which_events(link->context) & POLLOUT))
        return link->state != LUN_LINK_FAILED;
    bool many = link->queued > 1;
    if (many != link->corked)
        set(link, TCP_CORK, many);
    link->corked = many;
    link->queued = 0;
    if (iscsi_service(link->context, POLLOUT) < 0)
        fail(link, -ECONNRESET);
    else if (many)
        set(link, TCP_NODELAY, 1);
    return link->state != LUN_LINK_FAILED;
}

static int explain_login(const struct lun_link *link, const char *portal, struct sentence *why)
{
    const struct lun_account *account = link->account;
    const char *name = account->name, *target = account->url.target;
    switch (link->error) {
    case -EACCES:
        if (login_status(link->text) == LOGIN_FORBIDDEN)
            return refuse(why, -EACCES,
                "datastore %s: the target %s does not let the initiator %s in; add that name to the target's access "
                "list, or give one that is there by ?initiator= in the url",
                name, target, account->initiator);
        if (!*account->url.user)
            return refuse(why, -EACCES,
                "datastore %s: the target %s wants CHAP; name the user in the url (iscsi://USER@…) and the secret's "
                "file by password-file",
                name, target);
        return refuse(why, -EACCES,
            "datastore %s: the target %s does not accept the CHAP user %s with the secret in password-file%s", name,
            target, account->url.user,
            *account->mutual_user ? ", or it does not know the one in mutual-password-file" : "");
    case -ENOENT:
        return refuse(why, -ENOENT,
            "datastore %s: %s has no target %s; ask it for its names (iscsiadm -m discovery -t st -p %s, or iscsi-ls)",
            name, portal, target, portal);
    case -EAGAIN:
        return refuse(why, -EAGAIN, "datastore %s: the target %s has no room for another session; %s", name, target,
            "end others or let it have more");
    default:
        return refuse(why, link->error, "datastore %s: the login to the target %s at %s failed: %s", name, target,
            portal, *link->text ? link->text : error_text(link->error));
    }
}

int lun_link_explain(const struct lun_link *link, struct sentence *why)
{
    char portal[LUN_PORTAL_SIZE];
    const char *name = link->account->name;
    lun_url_portal(&link->account->url, portal);
    switch (link->error) {
    case -ECONNREFUSED:
        return refuse(why, -ECONNREFUSED,
            "datastore %s: nothing listens at %s; is the target running, and is that its port?", name, portal);
    case -ETIMEDOUT:
        return refuse(why, -ETIMEDOUT, "datastore %s: %s does not answer%s; is it there, and is it an iSCSI target?",
            name, portal, link->state == LUN_LINK_FAILED && *link->text ? " to the login" : "");
    case -EINTR:
        return refuse(why, -EINTR, "datastore %s: the mount ends", name);
    case -EADDRNOTAVAIL:
        return refuse(why, -EHOSTUNREACH,
            "datastore %s: the name %s is not known here; is it spelt right, does the name "
            "server answer?",
            name, link->account->url.host);
    case -EHOSTUNREACH:
    case -ENETUNREACH:
        return refuse(why, link->error, "datastore %s: there is no way to %s (%s); check the name and the network",
            name, portal, error_text(link->error));
    case -ECONNRESET:
        return refuse(why, -ECONNRESET,
            "datastore %s: what listens at %s ended the connection during the login; is it an iSCSI target?", name,
            portal);
    default:
        return explain_login(link, portal, why);
    }
}
