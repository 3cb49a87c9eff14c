/* notify: what the service manager that started this process ($NOTIFY_SOCKET) is told, by sd_notify(3)'s protocol. */
#pragma once

/* text: "KEY=VALUE" lines; count descriptors go along. 0, also without such a manager; -errno. Does not block. */
int notify_say(const char *text, const int *descriptors, unsigned count);
