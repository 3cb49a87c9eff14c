#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"

#define DESCRIPTORS_MAX 16

int notify_say(const char *text, const int *descriptors, unsigned count)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } control;
    if (!path || !*path)
        return 0;
    if ((path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path) || count > DESCRIPTORS_MAX)
        return -EINVAL;
    strcpy(address.sun_path, path);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr header = {.msg_name = &address,
        .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)),
        .msg_iov = &iov,
        .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(part), descriptors, count * sizeof(int));
    }
    return sendmsg(fd, &header, MSG_NOSIGNAL) < 0 ? -errno : 0;
}
