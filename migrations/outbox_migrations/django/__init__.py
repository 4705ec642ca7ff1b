"""The same migrations for Django projects: add `outbox_migrations.django` to INSTALLED_APPS."""
