#include "fs/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int message_send(int socket, const struct message *message, const int *descriptors, unsigned count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MESSAGE_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec iov = {(void *)message, sizeof(*message)};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count > MESSAGE_DESCRIPTORS)
        return -EINVAL;
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
    ssize_t sent;
    do {
        sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int message_say(int socket, enum message_kind kind)
{
    struct message message = {.version = MESSAGE_VERSION, .kind = kind};
    return message_send(socket, &message, NULL, 0);
}

int message_receive(int socket, struct message *message, int *descriptors, unsigned *count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MESSAGE_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec iov = {message, sizeof(*message)};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof(control.bytes);
        *count = 0;
    }
    ssize_t length;
    do {
        length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (length < 0 && errno == EINTR);
    if (length <= 0)
        return length < 0 && errno != ECONNRESET ? -errno : 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part && count; part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        *count = (unsigned)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(part), *count * sizeof(int));
    }
    if (length != (ssize_t)sizeof(*message) || message->version != MESSAGE_VERSION || (header.msg_flags & MSG_CTRUNC))
        return -EPROTO;
    return 1;
}
