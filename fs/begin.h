/* begin: how a keeper comes to its mount: by mount(2), or from a keeper that died. */
#pragma once

struct keeper;

/* Sets session, fuse and clones. 0 or -errno with a sentence: of what begin_anew made nothing is left mounted; a mount
 * that begin_again cannot go on with is left as it is. */
int begin_anew(struct keeper *keeper);
int begin_again(struct keeper *keeper);
