/* User attributes of the datastore in memory. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "backends/memory.h"

#define XATTR_SPACE "user."

void memory_free_attribute(struct memory_attribute *attribute)
{
    list_remove(&attribute->link);
    free(attribute->name);
    free(attribute->value);
    free(attribute);
}

/* Finds the node and, if it has it, the attribute. The kernel lets only files and directories have user.* ones. */
static int find_attribute(struct memory *memory, const char *path, const char *name, bool to_set,
    struct memory_node **out, struct memory_attribute **attribute)
{
    int error = memory_find(memory, path, out);
    if (error)
        return error;
    if (strncmp(name, XATTR_SPACE, strlen(XATTR_SPACE)) != 0)
        return -EOPNOTSUPP;
    if (!S_ISREG((*out)->st.st_mode) && !S_ISDIR((*out)->st.st_mode))
        return to_set ? -EPERM : -ENODATA;
    *attribute = NULL;
    list_for_each (link, &(*out)->attributes) {
        struct memory_attribute *found = container_of(link, struct memory_attribute, link);
        if (strcmp(found->name, name) == 0)
            *attribute = found;
    }
    return 0;
}

ssize_t memory_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    struct memory_attribute *found;
    if (!memory)
        return -EIO;
    int error = find_attribute(memory, path, name, false, &node, &found);
    if (!error && !found)
        error = -ENODATA;
    if (!error && size && found->size > size)
        error = -ERANGE;
    if (error)
        return memory_leave(memory, error);
    if (size)
        memcpy(value, found->value, found->size);
    return memory_leave(memory, (int)found->size);
}

static int store_attribute(
    struct memory_node *node, struct memory_attribute *found, const char *name, const void *value, size_t size)
{
    struct memory_attribute *made = found ? found : calloc(1, sizeof(*made));
    void *copy = malloc(size + 1);
    char *own_name = found ? found->name : strdup(name);
    if (!made || !copy || !own_name) {
        if (!found) {
            free(made);
            free(own_name);
        }
        free(copy);
        return -ENOMEM;
    }
    memcpy(copy, value, size);
    free(made->value);
    made->name = own_name;
    made->value = copy;
    made->size = size;
    if (!found)
        list_append(&node->attributes, &made->link);
    return 0;
}

int memory_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    struct memory_attribute *found;
    if (!memory)
        return -EIO;
    int error = find_attribute(memory, path, name, true, &node, &found);
    if (!error && strlen(name) > XATTR_NAME_MAX)
        error = -ERANGE;
    if (!error && size > XATTR_SIZE_MAX)
        error = -E2BIG;
    if (!error && found && (flags & XATTR_CREATE))
        error = -EEXIST;
    if (!error && !found && (flags & XATTR_REPLACE))
        error = -ENODATA;
    if (!error)
        error = store_attribute(node, found, name, value, size);
    return memory_leave(memory, error);
}

ssize_t memory_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    size_t used = 0;
    if (!memory)
        return -EIO;
    int error = memory_find(memory, path, &node);
    if (error)
        return memory_leave(memory, error);
    list_for_each (link, &node->attributes) {
        const char *name = container_of(link, struct memory_attribute, link)->name;
        size_t bytes = strlen(name) + 1;
        if (size && used + bytes > size)
            return memory_leave(memory, -ERANGE);
        if (size)
            memcpy(out + used, name, bytes);
        used += bytes;
    }
    return memory_leave(memory, (int)used);
}

int memory_remove_xattr(struct datastore *datastore, const char *path, const char *name)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    struct memory_attribute *found;
    if (!memory)
        return -EIO;
    int error = find_attribute(memory, path, name, true, &node, &found);
    if (!error && !found)
        error = -ENODATA;
    if (!error)
        memory_free_attribute(found);
    return memory_leave(memory, error);
}
