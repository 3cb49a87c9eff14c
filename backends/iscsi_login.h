/* login: how a session comes up and goes down. On the session's reactor. */
#pragma once

#include "backends/iscsi_image.h"

/* DOWN, and there is something to send: begin now, or when the back-off is over. */
void lun_login_begin(struct lun_session *session);
/* The link has failed, or is given up: what was sent becomes ghosts until the next login's answer. */
void lun_login_drop(struct lun_session *session, const char *reason);
/* No descriptor, no context; nothing of the session is called any more but its tasks. */
void lun_login_end(struct lun_session *session);
/* Of session->out and session->in. */
void lun_login_resolved(struct task *task);

/* In iscsi_session.c */
void lun_session_kick(struct lun_session *session);
void lun_session_arm(struct lun_session *session);
