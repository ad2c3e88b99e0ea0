"""All SQL of the service: classes that write and read profiles, and one for changes of users."""
