"""Who may use the proxy: tenants, their keys, and the file that names them.

``keys`` makes and recognises keys, ``file`` reads the file, ``door`` says for each request whose it is, and
``reload`` keeps the door and the policy's limits as the file says. What a tenant may have is decided in
``marsproxy.core.tenant_limits``; nothing in here knows of turns or sessions.
"""
