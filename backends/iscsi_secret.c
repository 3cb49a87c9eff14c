#include "backends/iscsi_secret.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

int lun_secret_read(char out[static LUN_SECRET_SIZE], const char *name, const char *path, struct sentence *why)
{
    struct stat st;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        return refuse(
            why, -errno, "datastore %s: the password file %s cannot be read: %s", name, path, error_text(errno));
    if (!S_ISREG(st.st_mode))
        return refuse(why, -EINVAL, "datastore %s: the password file %s is no regular file", name, path);
    if (st.st_mode & 077)
        return refuse(why, -EACCES,
            "datastore %s: others than its owner may use the password file %s (mode %o); chmod 600 it, and change the "
            "secret if somebody may have read it",
            name, path, (unsigned)(st.st_mode & 07777));
    ssize_t length = read(fd, out, LUN_SECRET_SIZE);
    if (length < 0)
        return refuse(
            why, -errno, "datastore %s: the password file %s cannot be read: %s", name, path, error_text(errno));
    if (length > 0 && out[length - 1] == '\n')
        length--;
    if (length > 0 && out[length - 1] == '\r')
        length--;
    bool wrong = length == 0 || length == LUN_SECRET_SIZE || memchr(out, '\n', (size_t)length) ||
                 memchr(out, 0, (size_t)length);
    if (wrong) {
        explicit_bzero(out, LUN_SECRET_SIZE);
        return refuse(why, -EINVAL, "datastore %s: the password file %s must hold one line of 1 to %d characters", name,
            path, LUN_SECRET_SIZE - 1);
    }
    out[length] = 0;
    return 0;
}
