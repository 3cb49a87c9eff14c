#include "catalog/store.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

#define FORMAT           2
#define CHECKPOINT_PAGES 1000
#define BUSY_MS          10000

struct store {
    char path[PATH_MAX];
    sqlite3 *database, *checkpoints;
    sqlite3_stmt *statements[STORE_STATEMENTS];
    pthread_mutex_t mutex; /* recursive; held from begin to commit */
    unsigned depth;
    int error;
    bool durable;
    /* the checkpointer's */
    pthread_mutex_t due_mutex;
    pthread_cond_t due_changed;
    pthread_t thread;
    bool thread_runs, due, ending;
};

static const char schema[] =
    "CREATE TABLE datastores(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, scanned INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE nodes(id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, name TEXT NOT NULL,"
    " datastore INTEGER NOT NULL, carriers INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL,"
    " gid INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL, blocks INTEGER NOT NULL,"
    " atime INTEGER NOT NULL, atime_ns INTEGER NOT NULL, mtime INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
    " ctime INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, content TEXT, file TEXT, orphan INTEGER NOT NULL,"
    " trouble INTEGER NOT NULL);"
    "CREATE TABLE applied(slot INTEGER PRIMARY KEY, uniq INTEGER NOT NULL, result INTEGER NOT NULL, node INTEGER NOT "
    "NULL);"
    "CREATE TABLE intents(id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, committed INTEGER NOT NULL,"
    " slot INTEGER NOT NULL, uniq INTEGER NOT NULL, node INTEGER NOT NULL, parent INTEGER NOT NULL, name TEXT NOT NULL,"
    " origin TEXT NOT NULL, destination TEXT NOT NULL, datastores INTEGER NOT NULL, replaced INTEGER NOT NULL,"
    " replaced_datastores INTEGER NOT NULL, replaced_inode INTEGER NOT NULL, keep INTEGER NOT NULL);"
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY AUTOINCREMENT, node INTEGER NOT NULL, source INTEGER NOT NULL,"
    " target INTEGER NOT NULL, state INTEGER NOT NULL, request TEXT NOT NULL, partial TEXT NOT NULL,"
    " source_file TEXT NOT NULL, kept TEXT NOT NULL DEFAULT '');"
    "CREATE TABLE results(node INTEGER PRIMARY KEY, line TEXT NOT NULL, error TEXT NOT NULL);"
    "PRAGMA user_version=2;";

/* From the format before. */
static const char upgrade[] = "ALTER TABLE jobs ADD COLUMN kept TEXT NOT NULL DEFAULT ''; PRAGMA user_version=2;";

/* clang-format off */
static const char *const texts[STORE_STATEMENTS] = {
    [STORE_DATASTORES] = "SELECT id, name, scanned FROM datastores ORDER BY id",
    [STORE_DATASTORE_ADD] = "INSERT INTO datastores(id, name) VALUES(?, ?)",
    [STORE_DATASTORE_SCANNED] = "UPDATE datastores SET scanned=1 WHERE id=?",
    [STORE_NODES] = "SELECT id, parent, name, datastore, carriers, mode, uid, gid, rdev, size, blocks, atime, atime_ns,"
        " mtime, mtime_ns, ctime, ctime_ns, content, file, orphan, trouble FROM nodes ORDER BY id",
    [STORE_NODE_ADD] = "INSERT INTO nodes(id, parent, name, datastore, carriers, mode, uid, gid, rdev, size, blocks, atime,"
        " atime_ns, mtime, mtime_ns, ctime, ctime_ns, content, file, orphan, trouble)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [STORE_NODE_PLACE] = "UPDATE nodes SET parent=?2, name=?3, datastore=?4, carriers=?5, file=?6, orphan=?7, trouble=?8"
        " WHERE id=?1",
    [STORE_NODE_ATTRIBUTES] = "UPDATE nodes SET mode=?2, uid=?3, gid=?4, rdev=?5, size=?6, blocks=?7, atime=?8, atime_ns=?9,"
        " mtime=?10, mtime_ns=?11, ctime=?12, ctime_ns=?13 WHERE id=?1",
    [STORE_NODE_HOME] = "UPDATE nodes SET datastore=?2 WHERE id=?1",
    [STORE_NODE_CARRIERS] = "UPDATE nodes SET carriers=(carriers | ?2) & ~?3 WHERE id=?1",
    [STORE_NODE_DELETE] = "DELETE FROM nodes WHERE id=?",
    [STORE_NODES_FORGET] = "DELETE FROM nodes WHERE id<>1 AND datastore NOT IN (SELECT id FROM datastores)",
    [STORE_LAST_ID] = "SELECT max((SELECT ifnull(max(id), 1) FROM nodes),"
        " ifnull((SELECT seq FROM sqlite_sequence WHERE name='nodes'), 1))",
    [STORE_APPLIED_PUT] = "INSERT INTO applied(slot, uniq, result, node) VALUES(?1, ?2, ?3, ?4)"
        " ON CONFLICT(slot) DO UPDATE SET uniq=?2, result=?3, node=?4",
    [STORE_APPLIED] = "SELECT result, node FROM applied WHERE slot=? AND uniq=?",
    [STORE_APPLIED_CLEAR] = "DELETE FROM applied",
    [STORE_INTENT_ADD] = "INSERT INTO intents(kind, committed, slot, uniq, node, parent, name, origin, destination,"
        " datastores, replaced, replaced_datastores, replaced_inode, keep) VALUES(?,0,?,?,?,?,?,?,?,?,?,?,?,?)",
    [STORE_INTENT_COMMITTED] = "UPDATE intents SET committed=1 WHERE id=?",
    [STORE_INTENT_DELETE] = "DELETE FROM intents WHERE id=?",
    [STORE_INTENTS] = "SELECT id, kind, committed, slot, uniq, node, parent, name, origin, destination, datastores, replaced,"
        " replaced_datastores, replaced_inode, keep FROM intents ORDER BY id",
    [STORE_JOB_ADD] = "INSERT INTO jobs(node, source, target, state, request, partial, source_file, kept)"
        " VALUES(?,?,?,?,?,?,?,?)",
    [STORE_JOB_UPDATE] = "UPDATE jobs SET node=?2, source=?3, target=?4, state=?5, request=?6, partial=?7, source_file=?8,"
        " kept=?9 WHERE id=?1",
    [STORE_JOB_REQUEST] = "UPDATE jobs SET request=?2 WHERE id=?1",
    [STORE_JOB_DELETE] = "DELETE FROM jobs WHERE id=?",
    [STORE_JOBS] = "SELECT id, node, source, target, state, request, partial, source_file, kept FROM jobs ORDER BY id",
    [STORE_RESULT_PUT] = "INSERT INTO results(node, line, error) VALUES(?1, ?2, ?3)"
        " ON CONFLICT(node) DO UPDATE SET line=?2, error=?3",
    [STORE_RESULT] = "SELECT line, error FROM results WHERE node=?",
    [STORE_RESULT_DELETE] = "DELETE FROM results WHERE node=?",
};
/* clang-format on */

static int fail(struct store *store, int code)
{
    int error = (code & 0xff) == SQLITE_FULL ? -ENOSPC : -EIO;
    log_error("the catalog %s: %s (%s)", store->path, sqlite3_errmsg(store->database), sqlite3_errstr(code));
    return error;
}

static int execute(struct store *store, const char *text)
{
    int code = sqlite3_exec(store->database, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : fail(store, code);
}

static int pages_written(void *argument, sqlite3 *database, const char *name, int pages)
{
    struct store *store = argument;
    if (pages < CHECKPOINT_PAGES)
        return SQLITE_OK;
    pthread_mutex_lock(&store->due_mutex);
    store->due = true;
    pthread_cond_signal(&store->due_changed);
    pthread_mutex_unlock(&store->due_mutex);
    return SQLITE_OK;
}

static void *checkpointer(void *argument)
{
    struct store *store = argument;
    pthread_mutex_lock(&store->due_mutex);
    while (!store->ending) {
        if (!store->due) {
            pthread_cond_wait(&store->due_changed, &store->due_mutex);
            continue;
        }
        store->due = false;
        pthread_mutex_unlock(&store->due_mutex);
        sqlite3_wal_checkpoint_v2(store->checkpoints, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        pthread_mutex_lock(&store->due_mutex);
    }
    pthread_mutex_unlock(&store->due_mutex);
    return NULL;
}

static int version_of(struct store *store)
{
    sqlite3_stmt *statement;
    int version = -1;
    if (sqlite3_prepare_v2(store->database, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

static int open_database(struct store *store, struct sentence *why)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(store->path, &store->database, flags, NULL) != SQLITE_OK)
        return refuse(why, -EIO, "the catalog %s cannot be opened: %s", store->path, sqlite3_errmsg(store->database));
    sqlite3_busy_timeout(store->database, BUSY_MS);
    if (execute(store, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0") != 0)
        return refuse(why, -EIO, "the catalog %s cannot be used: %s", store->path, sqlite3_errmsg(store->database));
    int version = version_of(store);
    if (version == 0 && execute(store, "BEGIN IMMEDIATE") == 0) {
        if (execute(store, schema) != 0 || execute(store, "COMMIT") != 0)
            return refuse(why, -EIO, "the catalog %s cannot be made: %s", store->path, sqlite3_errmsg(store->database));
        version = FORMAT;
    }
    if (version == 1 && execute(store, "BEGIN IMMEDIATE") == 0) {
        if (execute(store, upgrade) != 0 || execute(store, "COMMIT") != 0)
            return refuse(why, -EIO, "the catalog %s cannot be brought up to date: %s", store->path,
                sqlite3_errmsg(store->database));
        version = FORMAT;
    }
    if (version != FORMAT)
        return refuse(why, version > FORMAT ? -EPROTO : -EIO,
            "the catalog %s has format %d, this svmfs reads %d; moved away, it is made anew from the datastores",
            store->path, version, FORMAT);
    return 0;
}

/* A job's record that the last process wrote counts once it is durable (law 1): then what it left is checkpointed with
 * fsync before anybody reads it. Names need that not: the datastores bear witness; so a worker that follows another
 * starts without waiting for a disk. */
static bool has_jobs(struct store *store)
{
    sqlite3_stmt *statement = NULL;
    bool has = sqlite3_prepare_v2(store->database, "SELECT 1 FROM jobs LIMIT 1", -1, &statement, NULL) != SQLITE_OK ||
               sqlite3_step(statement) != SQLITE_DONE;
    sqlite3_finalize(statement);
    return has;
}

int store_open(struct store **out, const char *directory, struct sentence *why)
{
    struct store *store = calloc(1, sizeof(*store));
    pthread_mutexattr_t recursive;
    if (!store)
        return refuse(why, -ENOMEM, "no memory for the catalog");
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&store->mutex, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&store->due_mutex, NULL);
    pthread_cond_init(&store->due_changed, NULL);
    snprintf(store->path, sizeof(store->path), "%s/catalog.db", directory);
    int error = 0;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        error = refuse(why, -errno, "the state directory %s cannot be made: %s", directory, error_text(errno));
    if (!error)
        error = open_database(store, why);
    if (!error && has_jobs(store) &&
        execute(store, "PRAGMA synchronous=FULL; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous=NORMAL") != 0)
        error = refuse(why, -EIO, "the catalog %s cannot be written: %s", store->path, sqlite3_errmsg(store->database));
    if (!error && sqlite3_open_v2(
                      store->path, &store->checkpoints, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        error = refuse(why, -EIO, "the catalog %s cannot be opened twice", store->path);
    if (!error && pthread_create(&store->thread, NULL, checkpointer, store) != 0)
        error = refuse(why, -EAGAIN, "no thread for the catalog's checkpoints");
    store->thread_runs = error == 0;
    if (error) {
        store_close(store);
        return error;
    }
    sqlite3_wal_hook(store->database, pages_written, store);
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    if (store->thread_runs) {
        pthread_mutex_lock(&store->due_mutex);
        store->ending = true;
        pthread_cond_signal(&store->due_changed);
        pthread_mutex_unlock(&store->due_mutex);
        pthread_join(store->thread, NULL);
    }
    for (int i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->checkpoints);
    sqlite3_close(store->database);
    pthread_cond_destroy(&store->due_changed);
    pthread_mutex_destroy(&store->due_mutex);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

void store_begin(struct store *store, bool durable)
{
    pthread_mutex_lock(&store->mutex);
    if (store->depth++ > 0)
        return;
    store->durable = durable;
    store->error = durable ? execute(store, "PRAGMA synchronous=FULL") : 0;
    if (!store->error)
        store->error = execute(store, "BEGIN IMMEDIATE");
}

static int end(struct store *store, bool commit)
{
    int error = store->error;
    if (!commit && !error)
        error = store->error = -ECANCELED;
    if (--store->depth == 0) {
        if (!error)
            error = execute(store, "COMMIT");
        if (!sqlite3_get_autocommit(store->database))
            execute(store, "ROLLBACK");
        if (store->durable)
            execute(store, "PRAGMA synchronous=NORMAL");
    }
    pthread_mutex_unlock(&store->mutex);
    return error;
}

int store_commit(struct store *store)
{
    return end(store, true);
}

void store_rollback(struct store *store)
{
    end(store, false);
}

static int prepare(struct store *store, enum statement statement, const char *types, va_list values)
{
    sqlite3_stmt **prepared = &store->statements[statement];
    int code = SQLITE_OK;
    if (!*prepared)
        code = sqlite3_prepare_v3(store->database, texts[statement], -1, SQLITE_PREPARE_PERSISTENT, prepared, NULL);
    for (int i = 0; types[i] && code == SQLITE_OK; i++) {
        if (types[i] == 'i') {
            code = sqlite3_bind_int64(*prepared, i + 1, va_arg(values, int64_t));
        } else {
            const char *text = va_arg(values, const char *);
            code = text ? sqlite3_bind_text(*prepared, i + 1, text, -1, SQLITE_TRANSIENT)
                        : sqlite3_bind_null(*prepared, i + 1);
        }
    }
    return code == SQLITE_OK ? 0 : fail(store, code);
}

void store_run(struct store *store, enum statement statement, const char *types, ...)
{
    va_list values;
    if (store->error)
        return;
    va_start(values, types);
    int error = prepare(store, statement, types, values);
    va_end(values);
    if (!error) {
        int code = sqlite3_step(store->statements[statement]);
        if (code != SQLITE_DONE)
            error = fail(store, code);
        sqlite3_reset(store->statements[statement]);
    }
    store->error = error;
}

uint64_t store_last_id(struct store *store)
{
    return (uint64_t)sqlite3_last_insert_rowid(store->database);
}

int store_select(
    struct store *store, enum statement statement, store_visit *visit, void *argument, const char *types, ...)
{
    va_list values;
    pthread_mutex_lock(&store->mutex);
    va_start(values, types);
    int result = prepare(store, statement, types, values), code = SQLITE_DONE;
    va_end(values);
    while (result == 0 && (code = sqlite3_step(store->statements[statement])) == SQLITE_ROW)
        result = visit(argument, (struct store_row *)store->statements[statement]);
    if (result == 0 && code != SQLITE_DONE)
        result = fail(store, code);
    if (store->statements[statement])
        sqlite3_reset(store->statements[statement]);
    pthread_mutex_unlock(&store->mutex);
    return result;
}

int64_t store_integer(struct store_row *row, int column)
{
    return sqlite3_column_int64((sqlite3_stmt *)row, column);
}

const char *store_text(struct store_row *row, int column)
{
    return (const char *)sqlite3_column_text((sqlite3_stmt *)row, column);
}
